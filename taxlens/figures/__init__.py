"""Figures for papers: one function a figure, from a tidy table to a drawing that says what it shows."""
