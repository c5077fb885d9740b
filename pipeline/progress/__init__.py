"""How far a run is: what workers report, who is told, and how often."""
