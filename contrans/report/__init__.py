"""What do people look at? Figures and tables made from results."""
