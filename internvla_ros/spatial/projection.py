"""Between pixels and space: pinhole cameras with lens distortion, planes and depth pictures.

Optical frames have x right, y down, z forward; depth is the coordinate along z, not the distance.
Pixels are those of the messages: (0, 0) is the outer corner of the first one. Camera drivers that
count from the centre of the first pixel are half a pixel off, which nothing here corrects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from internvla_ros.motion.se3 import Pose

Array = NDArray[np.float64]

DISTORTIONS = {"plumb_bob": 5, "rational_polynomial": 8, "": 0}
"""Models of distortion by their name in CameraInfo, and how many coefficients they have."""

_NEAR = 1e-6  # m in front of the lens; what is nearer has no picture
_ITERATIONS = 100
_CONVERGED = 1e-10  # in units of the focal length


class ProjectionError(ValueError):
    """Camera parameters that describe no camera, or one that is not supported."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with radial and tangential distortion, as CameraInfo describes it.

    Args:
        width, height: px, of the pictures.
        matrix: [3, 3] K, px.
        distortion: [n] k1 k2 p1 p2 k3 (k4 k5 k6), n is 0, 4, 5 or 8.

    Raises:
        ProjectionError: a size or a focal length is not positive, or a shape is wrong.
    """

    width: int
    height: int
    matrix: Array
    distortion: Array

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        distortion = np.array(self.distortion, dtype=np.float64).reshape(-1)
        if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
            raise ProjectionError("camera: K must be nine finite numbers")
        if self.width < 1 or self.height < 1 or matrix[0, 0] <= 0.0 or matrix[1, 1] <= 0.0:
            raise ProjectionError(
                f"camera: size {self.width}x{self.height} and focal lengths {matrix[0, 0]:g}, "
                f"{matrix[1, 1]:g} must be positive; is it calibrated?"
            )
        if distortion.size not in (0, 4, 5, 8) or not np.isfinite(distortion).all():
            raise ProjectionError(
                f"camera: {distortion.size} distortion coefficients; 0, 4, 5 or 8 finite ones are "
                "needed"
            )
        full = np.zeros(8)
        full[: distortion.size] = distortion
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "distortion", full)

    @staticmethod
    def from_info(width: int, height: int, k: ArrayLike, d: ArrayLike, model: str) -> Camera:
        """From the numbers of a CameraInfo: k [9], d [n] and the name of the distortion model.

        Raises:
            ProjectionError: the model is unknown, or the numbers describe no camera.
        """
        if model not in DISTORTIONS:
            known = ", ".join(name for name in DISTORTIONS if name)
            raise ProjectionError(f"distortion model '{model}' is not supported; use {known}")
        matrix = np.asarray(k, dtype=np.float64)
        if matrix.size != 9:
            raise ProjectionError(f"camera: K has {matrix.size} numbers, not nine")
        return Camera(width, height, matrix.reshape(3, 3), np.asarray(d, dtype=np.float64))

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera with pictures of another size, in px."""
        if (width, height) == (self.width, self.height):
            return self
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(width, height, scale @ self.matrix, self.distortion)

    def project(self, points: ArrayLike) -> Array:
        """[N, 2] px of points [N, 3] (m, optical frame); NaN for those behind the lens."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        depth = np.where(points[:, 2:] > _NEAR, points[:, 2:], np.nan)
        bent = self._distorted(points[:, :2] / depth)
        return bent @ self.matrix[:2, :2].T + self.matrix[:2, 2]

    def rays(self, pixels: ArrayLike) -> Array:
        """[N, 3] the direction with z = 1 (optical frame) that each pixel [N, 2] shows.

        NaN for pixels that no direction is drawn at, far outside of a strongly distorted picture.
        """
        pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
        bent = np.linalg.solve(self.matrix[:2, :2], (pixels - self.matrix[:2, 2]).T).T
        flat = self._undistorted(np.asarray(bent, dtype=np.float64))
        return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)

    def _lens(self, flat: Array) -> tuple[Array, Array]:
        """The radial factor [N, 1] and the tangential shift [N, 2] at undistorted places."""
        k1, k2, p1, p2, k3, k4, k5, k6 = self.distortion
        x, y = flat[:, :1], flat[:, 1:]
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        radial = radial / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        shift_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        shift_y = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return radial, np.concatenate([shift_x, shift_y], axis=1)

    def _distorted(self, flat: Array) -> Array:
        if not self.distortion.any():
            return flat
        radial, shift = self._lens(flat)
        return flat * radial + shift

    def _undistorted(self, bent: Array) -> Array:
        """The inverse of `_distorted`, by iteration."""
        if not self.distortion.any():
            return bent
        flat = bent.copy()
        with np.errstate(all="ignore"):
            for _ in range(_ITERATIONS):
                radial, shift = self._lens(flat)
                before, flat = flat, (bent - shift) / radial
                if not (np.abs(flat - before) > _CONVERGED).any():
                    break
            wrong = np.abs(self._distorted(flat) - bent).max(axis=1) > 1e-6
        flat[wrong | ~np.isfinite(flat).all(axis=1)] = np.nan
        return flat


@dataclass(frozen=True, eq=False)
class View:
    """A camera at a place: `pose` is its optical frame in the base frame."""

    camera: Camera
    pose: Pose

    def project(self, points: ArrayLike) -> Array:
        """[N, 2] px of points [N, 3] (m, base frame); NaN for those behind the lens."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return self.camera.project((points - self.pose.position) @ self.pose.rotation)

    def directions(self, pixels: ArrayLike) -> Array:
        """[N, 3] unit vectors (base frame) from the camera through each pixel [N, 2]."""
        rays = self.camera.rays(pixels) @ self.pose.rotation.T
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def on_plane(self, pixels: ArrayLike, height: float) -> Array:
        """[N, 3] where the rays of pixels [N, 2] meet the plane z = height (m, base frame).

        NaN where the plane is behind the camera or the ray runs along it.
        """
        rays = self.camera.rays(pixels) @ self.pose.rotation.T
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (height - self.pose.position[2]) / rays[:, 2]
        depth[~(np.isfinite(depth) & (depth > _NEAR))] = np.nan
        return self.pose.position + depth[:, None] * rays

    def at_depth(self, pixels: ArrayLike, depth: ArrayLike) -> Array:
        """[N, 3] (m, base frame) what pixels [N, 2] show at depths [N] (m)."""
        rays = self.camera.rays(pixels)
        return self.pose.apply(rays * np.asarray(depth, dtype=np.float64).reshape(-1, 1))


def depths_at(picture: ArrayLike, pixels: ArrayLike, radius: int = 2) -> Array:
    """[N] depths (m) that a depth picture [h, w] (m; 0, NaN or infinite: none) has at pixels.

    The median of what is known within `radius` px of each pixel [N, 2], so that single holes and
    outliers do no harm; NaN where nothing is known or the pixel lies outside.
    """
    depth = np.asarray(picture, dtype=np.float64)
    height, width = depth.shape
    found = np.full(len(np.asarray(pixels).reshape(-1, 2)), np.nan)
    for index, (x, y) in enumerate(np.asarray(pixels, dtype=np.float64).reshape(-1, 2)):
        if not (0 <= x <= width and 0 <= y <= height):
            continue
        column, row = min(int(x), width - 1), min(int(y), height - 1)
        near = depth[
            max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1
        ]
        known = near[np.isfinite(near) & (near > 0.0)]
        if known.size:
            found[index] = np.median(known)
    return found
