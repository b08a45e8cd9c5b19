// Where the reference images have their strokes: a drawing is scaled and moved there, to be like the training data.

import type { Layout } from "./image";

export interface Placement {
  /** Ink is the high end of the range, on a low ground. */
  bright: boolean;
  /** The longer side of the ink's box, mean over the images, as a share of the image's. */
  extent: number;
  /** The middle of that box, mean over the images, as a share of the image's width and height. */
  x: number;
  y: number;
}

export const CENTERED: Placement = { bright: true, extent: 0.75, x: 0.5, y: 0.5 };

/** `images`: shares from 0 to 1, each [height * width * channels]. */
export function placementOf(images: ArrayLike<number>[], layout: Layout): Placement {
  const { height, width } = layout;
  if (!images.length) return CENTERED;
  const ground = images.reduce((sum, image) => sum + groundOf(image, layout), 0) / images.length;
  const bright = ground < 0.5;
  const boxes = images.flatMap((image) => inkBox(image, layout, bright) ?? []);
  if (!boxes.length) return { ...CENTERED, bright };
  const mean = (pick: (box: Box) => number) => boxes.reduce((sum, box) => sum + pick(box), 0) / boxes.length;
  return {
    bright,
    extent: mean((box) => Math.max((box.right - box.left) / width, (box.bottom - box.top) / height)),
    x: mean((box) => (box.left + box.right) / 2 / width),
    y: mean((box) => (box.top + box.bottom) / 2 / height),
  };
}

/** The mean of the four corners, from 0 to 1. */
export function groundOf(image: ArrayLike<number>, { height, width, channels }: Layout): number {
  const corners = [0, width - 1, (height - 1) * width, height * width - 1];
  return corners.reduce((sum, i) => sum + image[i * channels]!, 0) / corners.length;
}

interface Box {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

function inkBox(image: ArrayLike<number>, { height, width, channels }: Layout, bright: boolean): Box | undefined {
  const box = { left: width, right: 0, top: height, bottom: 0 };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = image[(y * width + x) * channels]!;
      if ((bright ? value : 1 - value) < 0.3) continue;
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x + 1);
      box.top = Math.min(box.top, y);
      box.bottom = Math.max(box.bottom, y + 1);
    }
  }
  return box.right ? box : undefined;
}
