// The histogram of a race: one strip for each contender on one logarithmic axis. The table below it has its figures.

import { short } from "../view/format";
import type { RaceRow } from "./race";
import { histogram, percentile } from "./statistics";

const BINS = 60;
const WIDTH = 600;
const STRIP = 34;
const AXIS = 22;
const SVG = "http://www.w3.org/2000/svg";

export const nameOf = ({ engine, variant }: Pick<RaceRow, "engine" | "variant">): string => `${variant} on ${engine}`;

/** Draw into `svg` what was measured so far. */
export function draw(svg: SVGSVGElement, rows: readonly RaceRow[]): void {
  const measured = rows.filter(({ wall_ms }) => wall_ms.length);
  const found = histogram(new Map(measured.map((row) => [nameOf(row), row.wall_ms])), BINS);
  const height = measured.length * STRIP + AXIS;
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
  svg.replaceChildren();
  if (!found) return;
  const { bounds_ms, counts } = found;
  const [low, high] = [bounds_ms[0]!, bounds_ms.at(-1)!];
  const x = (time: number): number => (WIDTH * Math.log(Math.max(time, low) / low)) / Math.log(high / low);
  measured.forEach((row, k) => {
    const bins = counts.get(nameOf(row))!;
    const most = Math.max(...bins);
    const floor = (k + 1) * STRIP;
    bins.forEach((count, bin) => {
      if (!count) return;
      const top = Math.max(2, ((STRIP - 16) * count) / most);
      svg.append(shape("rect", { x: (WIDTH * bin) / BINS, y: floor - top, width: WIDTH / BINS - 1, height: top }));
    });
    const middle = x(percentile(row.wall_ms, 50));
    svg.append(shape("line", { x1: middle, x2: middle, y1: floor - STRIP + 14, y2: floor }));
    svg.append(words(`${nameOf(row)}: ${short(percentile(row.wall_ms, 50))} ms`, 0, floor - STRIP + 11, "start"));
    svg.append(shape("line", { x1: 0, x2: WIDTH, y1: floor, y2: floor, class: "floor" }));
  });
  svg.append(words(`${short(low)} ms`, 0, height - 6, "start"));
  svg.append(words(`${short(Math.sqrt(low * high))} ms`, WIDTH / 2, height - 6, "middle"));
  svg.append(words(`${short(high)} ms`, WIDTH, height - 6, "end"));
}

function shape(kind: string, attributes: Record<string, string | number>): SVGElement {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

function words(text: string, x: number, y: number, anchor: string): SVGElement {
  const made = shape("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}
