"""Components of a net: sine networks, hyper-networks, blended landmark fields, windows, landmark generators."""
