"""How far a joint can carry what hangs on it: bounds that hold at every joint position.

A point beyond a revolute joint moves by no more than its distance from the joint's axis times the
joint's turn. That distance changes with the joints in between; here is the most it can be, by
following the chain outwards-in with a ball that holds the point wherever these joints stand.
"""

from __future__ import annotations

import numpy as np
import pinocchio as pin
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reach(model: pin.Model, joint: int, point: Array, radius: float = 0.0) -> Array:
    """[nv] the most that any point of a ball moves per rad (or m) of each joint, in m.

    Args:
        model: of the robot; the limits of its sliding joints count.
        joint: that carries the ball.
        point: [3] m, the ball's middle in the joint's frame.
        radius: of the ball, m.
    """
    result = np.zeros(model.nv)
    while joint > 0:
        axis, turns = _axis(model, joint)
        column, placement = model.joints[joint].idx_v, model.jointPlacements[joint]
        if turns:
            across = float(np.linalg.norm(np.cross(axis, point)))
            result[column] = across + radius
            point, radius = axis * (axis @ point), radius + across
        else:
            result[column] = 1.0
            at = model.joints[joint].idx_q
            ends = (model.lowerPositionLimit[at], model.upperPositionLimit[at])
            radius += float(np.abs(ends).max())
        point = placement.translation + placement.rotation @ point
        joint = model.parents[joint]
    return result


def bends(model: pin.Model, joint: int, point: Array) -> tuple[Array, Array]:
    """How the Jacobian of a point fixed to a joint changes: [nv, nv] each, symmetric.

    The first bounds the second derivatives of the point's place (m per rad and rad), the second
    those of its turning (rad per rad and rad).
    """
    most = reach(model, joint, point)
    shift, turn = np.zeros((model.nv, model.nv)), np.zeros((model.nv, model.nv))
    chain = [j for j in model.supports[joint] if j > 0]  # from the base outwards
    for i, inner in enumerate(chain):
        if not _axis(model, inner)[1]:
            continue  # what slides turns nothing
        for outer in chain[i:]:
            a, b = model.joints[inner].idx_v, model.joints[outer].idx_v
            shift[a, b] = shift[b, a] = most[b]
            if outer != inner and _axis(model, outer)[1]:
                turn[a, b] = turn[b, a] = 1.0
    return shift, turn


def _axis(model: pin.Model, joint: int) -> tuple[Array, bool]:
    """[3] the axis of a joint in its own frame, and whether it turns about it; else it slides."""
    data = model.createData()
    pin.computeJointJacobians(model, data, pin.neutral(model))
    jacobian = pin.getJointJacobian(model, data, joint, pin.ReferenceFrame.LOCAL)
    column = jacobian[:, model.joints[joint].idx_v]
    turns = bool(np.abs(column[3:]).max() > 0.5)
    return (column[3:] if turns else column[:3]), turns
