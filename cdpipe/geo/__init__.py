"""Where pixels are: grids, tilings, coordinate systems, areas on the ground."""
