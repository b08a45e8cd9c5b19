// A picture of any size, from a camera or a file, as the image that the model takes.

import { element } from "../view/dom";
import type { Given } from "./control";
import { isSketchable, tensorOf } from "./image";
import { groundOf } from "./placement";
import type { ImageInput } from "./task";

/** The middle of the picture in the model's aspect, scaled: shares from 0 to 1, [height * width * channels]. */
export function sharesOf(picture: CanvasImageSource, width: number, height: number, { layout }: ImageInput) {
  const context = new OffscreenCanvas(layout.width, layout.height).getContext("2d", { willReadFrequently: true })!;
  const scale = Math.max(layout.width / width, layout.height / height);
  const [w, h] = [width * scale, height * scale];
  context.fillStyle = "#fff"; // below what is transparent
  context.fillRect(0, 0, layout.width, layout.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (layout.width - w) / 2, (layout.height - h) / 2, w, h);
  return channelsOf(context.getImageData(0, 0, layout.width, layout.height).data, layout.channels);
}

/** Bytes [.., red green blue alpha] to shares with 3 channels, or 1: the luma of ITU-R BT.601, as image readers make gray. */
export function channelsOf(rgba: ArrayLike<number>, channels: 1 | 3): Float32Array {
  const pixels = rgba.length / 4;
  return Float32Array.from({ length: pixels * channels }, (_, i) => {
    if (channels === 3) return rgba[4 * Math.floor(i / 3) + (i % 3)]! / 255;
    return (0.299 * rgba[4 * i]! + 0.587 * rgba[4 * i + 1]! + 0.114 * rgba[4 * i + 2]!) / 255;
  });
}

/** Whether light and dark are the other way round than in the reference images: ink on paper, for a model of light ink. */
export const isInverted = (shares: Float32Array, { layout, placement }: ImageInput): boolean =>
  isSketchable(layout) && layout.channels === 1 && groundOf(shares, layout) < 0.5 !== placement.bright;

export const givenOf = (shares: Float32Array, invert: boolean, { spec, layout }: ImageInput): Given => ({
  inputs: { [spec.name]: tensorOf(invert ? shares.map((share) => 1 - share) : shares, layout, spec.dtype) },
});

/** A check box for models of small gray images. It follows the picture until a person sets it. */
export class InvertBox {
  readonly label: HTMLElement;
  private readonly box = element("input", { type: "checkbox" });
  private set = false;

  constructor(
    private readonly image: ImageInput,
    changed: () => void,
  ) {
    this.label = element("label", { className: "check" }, this.box, "Invert light and dark");
    this.label.hidden = !isSketchable(image.layout) || image.layout.channels !== 1;
    this.box.addEventListener("change", () => {
      this.set = true;
      changed();
    });
  }

  apply(shares: Float32Array): Given {
    if (!this.set) this.box.checked = isInverted(shares, this.image);
    return givenOf(shares, this.box.checked, this.image);
  }
}
