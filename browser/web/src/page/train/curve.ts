// The loss of each step as a line, drawn on a canvas.

import { element } from "../view/dom";

const [WIDTH, HEIGHT, MARGIN] = [600, 160, 6];

export class Curve {
  readonly canvas = element("canvas", { className: "curve", width: WIDTH, height: HEIGHT });
  private losses: number[] = [];
  private frame = 0;

  constructor() {
    this.canvas.role = "img";
    this.clear();
  }

  clear(): void {
    this.losses = [];
    this.draw();
  }

  add(loss: number): void {
    this.losses.push(loss);
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  private draw(): void {
    const { losses, canvas } = this;
    const context = canvas.getContext("2d")!;
    context.clearRect(0, 0, WIDTH, HEIGHT);
    canvas.ariaLabel = losses.length
      ? `Loss of each step: ${losses[0]!.toPrecision(3)} at first, ${losses.at(-1)!.toPrecision(3)} now`
      : "Loss of each step: none yet";
    const highest = losses.reduce((a, b) => Math.max(a, b), 0) || 1;
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2;
    context.beginPath();
    for (const [i, loss] of losses.entries())
      context.lineTo(
        MARGIN + (i / Math.max(1, losses.length - 1)) * (WIDTH - 2 * MARGIN),
        HEIGHT - MARGIN - (loss / highest) * (HEIGHT - 2 * MARGIN),
      );
    context.stroke();
  }
}
