"""Which cluster a subject belongs to, and what the cluster's text says of it: the extract stage's side of collective extraction.

The clusters are learnt by one worker (`streams.roles.cluster`); every extract worker follows their centres and their texts and
assigns its own subjects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from contracts.subjects import split_subject
from extractor.assignment import KINDS, Assignment
from extractor.collective import member_knowledge
from extractor.projection import project, space

if TYPE_CHECKING:
    from collections.abc import Collection

    from contracts.records import Cluster, EncodedKnowledge, Knowledge
    from contracts.subjects import Kind


class Membership:
    """Centres and texts of all clusters.

    Args:
        kinds: Those that are clustered; whoever is of another one belongs nowhere.
    """

    def __init__(self, kinds: Collection[Kind] = KINDS) -> None:
        self._kinds = kinds
        self._assignment = Assignment()
        self._texts: dict[str, Knowledge] = {}

    def moved(self, cluster: Cluster) -> None:
        """A centre is somewhere else now. Members stay where they were assigned until their own vector changes."""
        self._assignment.apply(cluster)

    def removed(self, cluster: str) -> None:
        """There is no such cluster any more; nobody is assigned to it again, and what was said of it is forgotten."""
        self._assignment.remove(cluster)
        self._texts.pop(cluster, None)

    def said(self, cluster: str, text: Knowledge | None) -> None:
        """What is known of a cluster; None: nothing any more."""
        if text is None:
            self._texts.pop(cluster, None)
        else:
            self._texts[cluster] = text

    def nearest(self, encoded: EncodedKnowledge) -> str | None:
        """The subject of the cluster that a vector is nearest to, empty for none; None: none of its kind and space is known.

        Raises:
            VectorError: The vector holds NaN or infinity.
            ValueError: It is no whole number of float32.
        """
        kind, _ = split_subject(encoded.subject)
        if kind not in self._kinds:
            return ""
        if not self._assignment.knows(kind, space(encoded.encoder)):
            return None
        vectors = np.frombuffer(encoded.vector, dtype="<f4")[None, :]  # (1, d_text)
        return self._assignment.nearest(kind, project(vectors), space(encoded.encoder))[0]

    def member_knowledge(self, own: Knowledge, cluster: str) -> Knowledge | None:
        """Knowledge of tier collective: the cluster's text with the member's own; None where nothing is known of the cluster."""
        text = self._texts.get(cluster)
        return None if text is None else member_knowledge(own, text)
