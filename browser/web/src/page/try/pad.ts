// A drawing pad: strokes in, the image a model would see out.

import type { Layout } from "./image";
import type { Placement } from "./placement";

type Point = { x: number; y: number };

const PEN = 0.12; // width of a stroke as a share of the image: about that of MNIST (3 of 28) and digits (4 of 32)
const FINE = 8; // each image pixel is the mean of FINE x FINE drawn ones

export class Pad {
  private strokes: Point[][] = [];
  private drawing = false;

  /** `changed` is called after every stretch of a stroke, and after `clear`. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly changed: () => void,
  ) {
    canvas.width = canvas.height = 560;
    canvas.addEventListener("pointerdown", (event) => this.start(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.drawing = false));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show());
    this.show();
  }

  get empty(): boolean {
    return !this.strokes.length;
  }

  clear(): void {
    this.strokes = [];
    this.show();
    this.changed();
  }

  /** The drawing as shares from 0 to 1, [height * width * channels]: placed like the reference images. */
  image({ width, height, channels }: Layout, placement: Placement): Float32Array {
    const ink = mean(this.render(width * FINE, height * FINE, placement), width, height);
    return Float32Array.from({ length: width * height * channels }, (_, i) => {
      const share = ink[Math.floor(i / channels)]!;
      return placement.bright ? share : 1 - share;
    });
  }

  private start(event: PointerEvent): void {
    this.canvas.setPointerCapture(event.pointerId);
    this.drawing = true;
    this.strokes.push([this.point(event)]);
    this.show();
    this.changed();
  }

  private move(event: PointerEvent): void {
    if (!this.drawing) return;
    this.strokes.at(-1)!.push(this.point(event));
    this.show();
    this.changed();
  }

  private point({ clientX, clientY }: PointerEvent): Point {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return { x: (clientX - left) / width, y: (clientY - top) / height };
  }

  private show(): void {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d")!;
    context.clearRect(0, 0, width, height);
    context.strokeStyle = getComputedStyle(this.canvas).color;
    draw(context, this.strokes, width, (point) => ({ x: point.x * width, y: point.y * height }));
  }

  /** The strokes' box scaled and moved to where the reference images have theirs. */
  private render(width: number, height: number, { extent, x, y }: Placement): ImageData {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
    const points = this.strokes.flat();
    const [left, right] = [Math.min(...points.map((p) => p.x)), Math.max(...points.map((p) => p.x))];
    const [top, bottom] = [Math.min(...points.map((p) => p.y)), Math.max(...points.map((p) => p.y))];
    const side = Math.min(width, height);
    // A dot has no size to scale: below a tenth of the pad, the drawing keeps its own.
    const scale = (side * Math.max(0.1, extent - PEN)) / Math.max(0.1, right - left, bottom - top);
    context.strokeStyle = "#000";
    draw(context, this.strokes, side, (point) => ({
      x: width * x + (point.x - (left + right) / 2) * scale,
      y: height * y + (point.y - (top + bottom) / 2) * scale,
    }));
    return context.getImageData(0, 0, width, height);
  }
}

type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

function draw(context: Context, strokes: Point[][], side: number, place: (point: Point) => Point): void {
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    for (const point of stroke.map(place)) context.lineTo(point.x, point.y);
    if (stroke.length === 1) context.lineTo(place(stroke[0]!).x + 0.01, place(stroke[0]!).y); // a dot
    context.stroke();
  }
}

/** Ink of each image pixel, 0 to 1. */
function mean(pixels: ImageData, width: number, height: number): Float32Array {
  const ink = new Float32Array(width * height);
  for (let y = 0; y < pixels.height; y++) {
    for (let x = 0; x < pixels.width; x++) {
      const to = Math.floor(y / FINE) * width + Math.floor(x / FINE);
      ink[to]! += pixels.data[4 * (y * pixels.width + x) + 3]! / 255 / FINE ** 2;
    }
  }
  return ink;
}
