"""Rotations and rigid poses: SO(3) and SE(3) in numpy.

Conventions: metres and radians; a rotation is a 3x3 matrix whose columns are the axes of the
moved frame; roll, pitch, yaw turn about the fixed x, y, z axes (R = Rz(yaw) Ry(pitch) Rx(roll));
quaternions are ordered x, y, z, w as in ROS messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_new = object.__new__
_SMALL = 1e-8  # below this angle (rad) the series replaces the closed form


@dataclass(frozen=True, eq=False)
class Pose:
    """A rigid transform: where a frame is and how it is turned, seen from its parent frame.

    Args:
        position: [3] metres.
        rotation: [3, 3] rotation matrix.

    Both are copied and made read-only. Values are not checked for being finite or orthonormal:
    see `is_valid` and `orthonormalise`.

    Raises:
        ValueError: a shape is wrong.
    """

    position: Array
    rotation: Array

    def __post_init__(self) -> None:
        position = np.array(self.position, dtype=np.float64)
        rotation = np.array(self.rotation, dtype=np.float64)
        if position.shape != (3,) or rotation.shape != (3, 3):
            raise ValueError(
                f"Pose: need position [3] and rotation [3, 3], got {position.shape} and "
                f"{rotation.shape}"
            )
        position.setflags(write=False)
        rotation.setflags(write=False)
        self.__dict__.update(position=position, rotation=rotation)

    @staticmethod
    def of(position: Array, rotation: Array) -> Pose:
        """From float64 arrays that nobody else will write to; they are neither copied nor checked.

        For what is made at a control rate: it takes a quarter of the time.
        """
        pose = _new(Pose)
        pose.__dict__.update(position=position, rotation=rotation)
        position.setflags(write=False)
        rotation.setflags(write=False)
        return pose

    @staticmethod
    def identity() -> Pose:
        """The pose that moves nothing."""
        return Pose(np.zeros(3), np.eye(3))

    @staticmethod
    def from_matrix(matrix: ArrayLike) -> Pose:
        """From a homogeneous matrix [4, 4]."""
        m = np.asarray(matrix, dtype=np.float64)
        if m.shape != (4, 4):
            raise ValueError(f"Pose.from_matrix: need [4, 4], got {m.shape}")
        return Pose(m[:3, 3], m[:3, :3])

    @staticmethod
    def from_rpy(position: ArrayLike, rpy: ArrayLike) -> Pose:
        """From a position [3] (m) and roll, pitch, yaw [3] (rad)."""
        return Pose(np.asarray(position, dtype=np.float64), rpy_to_matrix(rpy))

    @staticmethod
    def from_quaternion(position: ArrayLike, quaternion: ArrayLike) -> Pose:
        """From a position [3] (m) and a quaternion x, y, z, w [4] (normalised here)."""
        return Pose(np.asarray(position, dtype=np.float64), quaternion_to_matrix(quaternion))

    def matrix(self) -> Array:
        """As a homogeneous matrix [4, 4]."""
        m = np.eye(4)
        m[:3, :3] = self.rotation
        m[:3, 3] = self.position
        return m

    def rpy(self) -> Array:
        """Roll, pitch, yaw [3] (rad)."""
        return matrix_to_rpy(self.rotation)

    def quaternion(self) -> Array:
        """x, y, z, w [4], with w >= 0."""
        return matrix_to_quaternion(self.rotation)

    def inverse(self) -> Pose:
        """The transform the other way round."""
        back = self.rotation.T
        return Pose(-back @ self.position, back)

    def apply(self, points: ArrayLike) -> Array:
        """Move points [..., 3] from this frame into its parent."""
        return np.asarray(points, dtype=np.float64) @ self.rotation.T + self.position

    def __matmul__(self, other: Pose) -> Pose:
        """Composition: `(a @ b).apply(p) == a.apply(b.apply(p))`."""
        turn = self.rotation
        return Pose.of(turn.dot(other.position) + self.position, turn.dot(other.rotation))

    def is_valid(self, tolerance: float = 1e-3) -> bool:
        """Whether every number is finite and the rotation is one, to `tolerance`."""
        found = self.__dict__.get("valid")
        if found is None or found[0] != tolerance:
            found = self.__dict__["valid"] = (tolerance, self._is_valid(tolerance))
        return bool(found[1])

    def _is_valid(self, tolerance: float) -> bool:
        rows = self.rotation.tolist()
        (a, b, c), (d, e, f), (g, h, i) = rows
        x, y, z = self.position.tolist()
        if not math.isfinite(x + y + z + a + b + c + d + e + f + g + h + i):
            return False  # numbers so large that their sum is infinite are no pose either
        gram = (
            a * a + d * d + g * g - 1.0,
            b * b + e * e + h * h - 1.0,
            c * c + f * f + i * i - 1.0,
            a * b + d * e + g * h,
            a * c + d * f + g * i,
            b * c + e * f + h * i,
        )
        return max(gram) <= tolerance and min(gram) >= -tolerance and _det(rows) > 0.0


def rpy_to_matrix(rpy: ArrayLike) -> Array:
    """Rotation [3, 3] of roll, pitch, yaw [3] (rad): Rz(yaw) Ry(pitch) Rx(roll)."""
    r, p, y = (float(v) for v in np.asarray(rpy, dtype=np.float64))
    cr, sr, cp, sp, cy, sy = (f(v) for v in (r, p, y) for f in (math.cos, math.sin))
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def matrix_to_rpy(rotation: ArrayLike) -> Array:
    """Roll, pitch, yaw [3] (rad), pitch in [-pi/2, pi/2]; at pitch = +-pi/2 the roll is 0."""
    m = np.asarray(rotation, dtype=np.float64)
    across = math.hypot(m[0, 0], m[1, 0])
    pitch = math.atan2(-m[2, 0], across)
    if across < _SMALL:
        return np.array([0.0, pitch, math.atan2(-m[0, 1], m[1, 1])])
    return np.array([math.atan2(m[2, 1], m[2, 2]), pitch, math.atan2(m[1, 0], m[0, 0])])


def rotvec_to_matrix(rotvec: ArrayLike) -> Array:
    """Rotation [3, 3] about the axis of `rotvec` [3] by its length (rad)."""
    vector = rotvec if isinstance(rotvec, list) else np.asarray(rotvec, dtype=np.float64).tolist()
    x, y, z = vector
    xx, yy, zz = x * x, y * y, z * z
    angle = math.sqrt(xx + yy + zz)
    if angle < _SMALL:
        a, b = 1.0, 0.5
    else:
        a, b = math.sin(angle) / angle, 2.0 * (math.sin(0.5 * angle) / angle) ** 2
    xy, yz, zx = b * x * y, b * y * z, b * x * z
    x, y, z = a * x, a * y, a * z
    return np.array(
        [
            [1.0 - b * (yy + zz), xy - z, zx + y],
            [xy + z, 1.0 - b * (xx + zz), yz - x],
            [zx - y, yz + x, 1.0 - b * (xx + yy)],
        ]
    )


def matrix_to_rotvec(rotation: ArrayLike) -> Array:
    """Axis times angle [3] (rad), angle in [0, pi]."""
    x, y, z, w = _quaternion(np.asarray(rotation, dtype=np.float64).tolist())
    length = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if length < _SMALL else 2.0 * math.atan2(length, w) / length
    return np.array([scale * x, scale * y, scale * z])


def quaternion_to_matrix(quaternion: ArrayLike) -> Array:
    """Rotation [3, 3] of a quaternion x, y, z, w [4] of any length but zero.

    Raises:
        ValueError: the quaternion is not 4 numbers, not finite, or zero.
    """
    q = np.asarray(quaternion, dtype=np.float64)
    if q.shape != (4,):
        raise ValueError(f"quaternion: need [4], got {q.shape}")
    length = float(np.linalg.norm(q))
    if not math.isfinite(length) or length < _SMALL:
        raise ValueError(f"quaternion: {q.tolist()} has no direction; send a unit quaternion")
    x, y, z, w = (float(v) for v in q / length)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quaternion(rotation: ArrayLike) -> Array:
    """Unit quaternion x, y, z, w [4] with w >= 0, exact at every angle."""
    return np.array(_quaternion(np.asarray(rotation, dtype=np.float64).tolist()))


def _quaternion(rows: list[list[float]]) -> tuple[float, float, float, float]:
    (a, m01, m02), (m10, b, m12), (m20, m21, c) = rows
    xy, yz, zx = m10 + m01, m21 + m12, m02 + m20
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    # Four ways to write four times the quaternion times one of its components: take the longest.
    squares = (1 + a - b - c, 1 - a + b - c, 1 - a - b + c, 1 + a + b + c)
    most = max(squares)
    if most == squares[3]:
        x, y, z, w = wx, wy, wz, most
    elif most == squares[0]:
        x, y, z, w = most, xy, zx, wx
    elif most == squares[1]:
        x, y, z, w = xy, most, yz, wy
    else:
        x, y, z, w = zx, yz, most, wz
    length = math.copysign(math.sqrt(x * x + y * y + z * z + w * w), w)
    return x / length, y / length, z / length, w / length


def rot6d(rotation: ArrayLike) -> Array:
    """The first two columns of a rotation [6]: r00 r10 r20 r01 r11 r21."""
    m = np.asarray(rotation, dtype=np.float64)
    return np.concatenate([m[:, 0], m[:, 1]])


def rot6d_to_matrix(columns: ArrayLike) -> Array:
    """Rotation [3, 3] nearest in the Gram-Schmidt sense to two columns [6].

    Raises:
        ValueError: the columns are parallel, zero or not finite.
    """
    c = np.asarray(columns, dtype=np.float64)
    if c.shape != (6,):
        raise ValueError(f"rot6d: need [6], got {c.shape}")
    x = c[:3] / max(float(np.linalg.norm(c[:3])), 1e-300)
    y = c[3:] - (c[3:] @ x) * x
    length = float(np.linalg.norm(y))
    if not math.isfinite(length) or length < _SMALL or not np.any(x):
        raise ValueError(f"rot6d: {c.tolist()} does not span a plane")
    y = y / length
    return np.stack([x, y, np.cross(x, y)], axis=1)


def orthonormalise(rotation: ArrayLike) -> Array:
    """The rotation [3, 3] nearest to a matrix that drifted from being one."""
    u, _, vt = np.linalg.svd(np.asarray(rotation, dtype=np.float64))
    u[:, 2] *= np.sign(_det((u @ vt).tolist()))
    return u @ vt


def exp(twist: ArrayLike) -> Pose:
    """The pose reached by a constant body twist [6] (vx vy vz, wx wy wz) in unit time."""
    t = np.asarray(twist, dtype=np.float64)
    if t.shape != (6,):
        raise ValueError(f"exp: need a twist [6], got {t.shape}")
    return Pose(_left_jacobian(t[3:]) @ t[:3], rotvec_to_matrix(t[3:]))


def log(pose: Pose) -> Array:
    """The constant body twist [6] that reaches `pose` in unit time; inverse of `exp`."""
    w = matrix_to_rotvec(pose.rotation)
    return np.concatenate([np.linalg.solve(_left_jacobian(w), pose.position), w])


def interpolate(a: Pose, b: Pose, fraction: float) -> Pose:
    """Between two poses: the position on the straight line, the rotation on the shortest arc.

    `fraction` 0 gives `a`, 1 gives `b`; values outside extrapolate.
    """
    turn = matrix_to_rotvec(a.rotation.T.dot(b.rotation))
    return Pose.of(
        a.position + fraction * (b.position - a.position),
        a.rotation.dot(rotvec_to_matrix(fraction * turn)),
    )


def distance(a: Pose, b: Pose) -> tuple[float, float]:
    """How far apart two poses are: metres and radians."""
    (x, y, z), (u, v, w) = a.position.tolist(), b.position.tolist()
    (i, ij, ik), (ji, j, jk), (ki, kj, k) = a.rotation.T.dot(b.rotation).tolist()
    sine, cosine = math.hypot(kj - jk, ik - ki, ji - ij), i + j + k - 1.0  # twice either
    return math.hypot(u - x, v - y, w - z), math.atan2(sine, cosine)


def _left_jacobian(w: Array) -> Array:
    """Integral of exp(s [w]) over s in 0..1: carries a body velocity into a displacement."""
    angle = float(np.linalg.norm(w))
    k = np.array([[0.0, -w[2], w[1]], [w[2], 0.0, -w[0]], [-w[1], w[0], 0.0]])
    if angle < 1e-4:
        return np.eye(3) + 0.5 * k + k @ k / 6.0
    a = 2.0 * (math.sin(0.5 * angle) / angle) ** 2
    b = (angle - math.sin(angle)) / angle**3
    return np.eye(3) + a * k + b * (k @ k)


def _det(rows: list[list[float]]) -> float:
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
