"""What the notebooks use: parameters, figures, the checker of the exercises."""
