"""What has to be fast is compiled to machine code by numba, which is imported with these modules: import them where they are used."""
