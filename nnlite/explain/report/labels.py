"""Where the names of dots stand: nearest to their own dot, or joined to it by a thin line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, dist, hypot

from nnlite.explain.report.canvas import Canvas, Point, text_width

SIZE = 11.0
HEIGHT = 12.0  # of a name's box
NEAR, FAR = 4.0, 100.0  # pixels from a dot to its name, at least and at most
APART = 5.0  # pixels by which a name must be nearer to its own dot than to another, to need no line
LINE, CLEAR, OVER = 8.0, 14.0, 1.5  # how many pixels farther a place may be to spare a line, to be clear, a crossing

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Dot:
    """A dot, its name, and where the level arrow ends that begins at its centre."""

    name: str
    centre: Point
    radius: float
    tip: Point

    def distance(self, box: Box) -> float:
        """From the dot to a box."""
        return max(_distance(_around([self.centre]), box) - self.radius, 0.0)

    def clearance(self, box: Box) -> float:
        """From the dot or its arrow to a box."""
        return min(self.distance(box), _distance(_around([self.centre, self.tip]), box))

    def box(self) -> Box:
        """What no name may cover of the dot."""
        return _around([self.centre], 0.8 * self.radius)


def draw(
    canvas: Canvas, dots: Sequence[Dot], count: int, frame: Box, taken: Sequence[Box], names: Sequence[Box]
) -> None:
    """Name the first `count` dots within the frame; one without a place has no name.

    Names stay off the boxes that are `taken` and the `names` that are there already; their lines off the latter.
    """
    placing = _Placing(dots, frame, taken, names)
    for dot in dots[:count]:
        place = placing.find(dot)
        if place is not None:
            line = placing.add(dot, place)
            if line:
                canvas.line(line[0], line[-1], width=0.8)
            canvas.text(place[0], place[3] - 2.5, dot.name, size=SIZE)


class _Placing:
    """The dots of a picture, and what of it is taken."""

    def __init__(self, dots: Sequence[Dot], frame: Box, taken: Sequence[Box], names: Sequence[Box]) -> None:
        self.dots = dots
        self.frame = frame
        self.taken = [*taken, *(dot.box() for dot in dots), *(_around([dot.centre, dot.tip], 4) for dot in dots)]
        self.names = list(names)
        self.lines: list[Sequence[Point]] = []

    def find(self, dot: Dot) -> Box | None:
        """The free place of the least cost; None if there is none."""
        best, least = None, float("inf")
        for box in _places(dot):
            if dot.distance(box) >= least:
                break
            if self._free(box):
                cost = dot.distance(box) + (0.0 if self._alone(dot, box) else self._cost_of_line(dot, box))
                if cost < least:
                    best, least = box, cost
        return best

    def add(self, dot: Dot, box: Box) -> Sequence[Point]:
        """Take the place; the line that it needs, empty if none."""
        self.names.append(box)
        if self._alone(dot, box):
            return []
        self.lines.append(_line(dot, box))
        return self.lines[-1]

    def _free(self, box: Box) -> bool:
        inside = self.frame[0] < box[0] and self.frame[1] < box[1] and box[2] < self.frame[2] and box[3] < self.frame[3]
        return (
            inside
            and not any(_meet(box, other) for other in (*self.names, *self.taken))
            and all(_distance(_around([point]), box) > 2 for line in self.lines for point in line)
        )

    def _alone(self, dot: Dot, box: Box) -> bool:
        """Whether a name there is nearest to its own dot."""
        return all(o.clearance(box) > dot.distance(box) + APART for o in self.dots if o is not dot)

    def _cost_of_line(self, dot: Dot, box: Box) -> float:
        """Pixels that a place is worth that needs none: for the line, for other dots near, for what it runs over."""
        spots = [_around([point], 1) for point in _line(dot, box)]
        if any(_meet(spot, name) for name in self.names for spot in spots):
            return float("inf")
        others = [other for other in self.dots if other is not dot]
        over = sum(other.clearance(spot) < 2 for other in others for spot in spots)
        along = sum(dot.distance(spot) > 0 and dot.clearance(spot) < 2 for spot in spots)  # its own arrow
        return LINE + max(CLEAR - min(o.clearance(box) for o in others), 0.0) + OVER * (over + along)


def _places(dot: Dot) -> Iterator[Box]:
    """Boxes around a dot, the nearest first; of those, the ones that stand straight beside or above it."""
    (cx, cy), wide, reach = dot.centre, text_width(dot.name, SIZE), dot.radius + NEAR
    lefts = [cx + reach, cx - reach - wide, cx - wide / 2]
    lefts += [cx - wide / 2 + side * 12.0 * i for i in range(1, 12) for side in (1, -1)]
    tops = [cy - HEIGHT / 2, cy + reach, cy - reach - HEIGHT]
    tops += [cy - HEIGHT / 2 + side * 8.0 * i for i in range(1, 14) for side in (1, -1)]
    boxes = [(left, top, left + wide, top + HEIGHT) for left in lefts for top in tops]
    boxes.sort(key=dot.distance)
    return (box for box in boxes if NEAR - 0.01 <= dot.distance(box) <= FAR)


def _line(dot: Dot, box: Box) -> Sequence[Point]:
    """From a name to the centre of its dot."""
    return _along(_nearest(dot.centre, box), dot.centre)


def _around(points: Sequence[Point], room: float = 0.0) -> Box:
    across, down = [x for x, _ in points], [y for _, y in points]
    return min(across) - room, min(down) - room, max(across) + room, max(down) + room


def _along(begin: Point, end: Point) -> list[Point]:
    """Points of a line, at most 3 pixels apart."""
    steps = max(ceil(dist(begin, end) / 3), 1)
    (x, y), dx, dy = begin, (end[0] - begin[0]) / steps, (end[1] - begin[1]) / steps
    return [(x + i * dx, y + i * dy) for i in range(steps + 1)]


def _nearest(point: Point, box: Box) -> Point:
    """The point of a box that is nearest to another."""
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _distance(a: Box, b: Box) -> float:
    return hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0))


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
