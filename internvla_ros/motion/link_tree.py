"""Where every link of a robot stands in the link that carries it, for any joint positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from internvla_ros.motion.kinematics import KinematicsError
from internvla_ros.motion.se3 import Pose


@dataclass(frozen=True)
class Link:
    """A link and the one that carries it; `moves`: a joint that can move lies between them."""

    name: str
    parent: str
    moves: bool


class LinkTree:
    """All links of a description below its root. Holds scratch memory: one instance a thread.

    Raises:
        KinematicsError: the description is unreadable.
    """

    def __init__(self, urdf_xml: str) -> None:
        try:
            self._model = pin.buildModelFromXML(urdf_xml)
        except (ValueError, RuntimeError) as error:
            raise KinematicsError(f"robot description: {error}") from error
        self._data = self._model.createData()
        self._q = pin.neutral(self._model)
        frames = self._model.frames
        self._pairs: list[tuple[int, int]] = []
        self.links: list[Link] = []
        """In an order in which every link comes after the one that carries it."""
        for index, frame in enumerate(frames):
            if frame.type != pin.FrameType.BODY:
                continue
            joint = frames[frame.parentFrame]
            parent = frames[joint.parentFrame]
            if parent.type != pin.FrameType.BODY:
                continue  # the root stands in nothing
            moves = joint.type == pin.FrameType.JOINT
            self._pairs.append((joint.parentFrame, index))
            self.links.append(Link(frame.name, parent.name, moves))

    def placements(self, positions: Mapping[str, float]) -> list[Pose]:
        """For each of `links` its pose in the link that carries it.

        Args:
            positions: by joint, rad or m; joints left out stay where they were, at first at zero,
                and names that the description lacks are passed over.
        """
        for name, value in positions.items():
            if self._model.existJointName(name) and np.isfinite(value):
                joint = self._model.joints[self._model.getJointId(name)]
                if joint.nq == 1:
                    self._q[joint.idx_q] = value
        pin.framesForwardKinematics(self._model, self._data, self._q)
        placed = self._data.oMf
        found = [placed[parent].actInv(placed[child]) for parent, child in self._pairs]
        return [Pose(each.translation, each.rotation) for each in found]
