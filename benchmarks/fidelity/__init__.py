"""How good are the maps? LeGrad and other methods, compared by the published protocols."""
