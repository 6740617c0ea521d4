"""The tables and figures of Gu & Pears, "Parts-Based Implicit 3D Face Modeling" (VISAPP 2024), made anew from a run's folder."""
