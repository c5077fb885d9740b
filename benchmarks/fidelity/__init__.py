"""How good are the maps? LeGrad and its rivals by the published protocols, on one bench."""
