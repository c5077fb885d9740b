"""PE-Core (Perception Encoder): timm's ``Eva`` with rotary positions and attention pooling."""

from functools import cached_property

from legrad.towers.base import Pooler
from legrad.towers.eva import EvaTower
from legrad.towers.siglip import checked_map, map_pooler


class PerceptionTower(EvaTower):
    """SigLIP's pooler on EVA's blocks; if there is a class token, the pooler sees it too.

    Relevance and layer score are as for `SiglipTower`; the class token is left out of the map.
    """

    def _check(self) -> None:
        self.map_pooler = checked_map(self.trunk)

    @cached_property
    def pooler(self) -> Pooler:  # type: ignore[override]
        """The query's row of attention, and what follows it."""
        return map_pooler(self.trunk, self.map_pooler, self.head, front=0)
