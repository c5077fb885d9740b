"""How a run goes: what workers report, and who is told."""
