// The tab that takes an image file: chosen, dragged onto the page or pasted.

import { element, wordsOf } from "../view/dom";
import type { Control, Give, InputTab } from "./control";
import { InvertBox, sharesOf } from "./picture";
import type { ImageInput, Task } from "./task";

export const FILE: InputTab = {
  id: "file",
  title: "File",
  hint: "Choose, drag or paste an image.",
  available: ({ image }) => (image ? undefined : null),
  build: (into, task, give) => new FileControl(into, task.image!, give),
};

class FileControl implements Control {
  private readonly words = element("p", { className: "hint", role: "status" });
  private readonly preview = element("canvas", { hidden: true, role: "img", ariaLabel: "The chosen image" });
  private readonly invert: InvertBox;
  private shares: Float32Array | undefined;
  private opening = 0;

  constructor(
    into: HTMLElement,
    private readonly image: ImageInput,
    private readonly give: Give,
  ) {
    this.invert = new InvertBox(image, () => this.show());
    const input = element("input", { type: "file", accept: "image/*", id: "file" });
    input.addEventListener("change", () => {
      if (input.files?.[0]) this.open(input.files[0]);
    });
    const invitation = element("span", {}, element("b", {}, "Choose an image"), ", drag it onto the page, or paste it");
    into.append(element("label", { className: "stage drop" }, this.preview, invitation, input));
    into.append(this.invert.label, this.words);
  }

  show(): void {
    this.give(this.shares && this.invert.apply(this.shares));
  }

  hide(): void {}

  /** Show the file's image and give it. What is no image is named. */
  open(file: Blob): void {
    const opening = ++this.opening;
    this.words.textContent = "";
    createImageBitmap(file).then(
      (bitmap) => {
        if (opening !== this.opening) return bitmap.close(); // a newer file came meanwhile
        this.paint(bitmap);
        this.shares = sharesOf(bitmap, bitmap.width, bitmap.height, this.image);
        bitmap.close();
        this.show();
      },
      (error) => {
        const name = file instanceof File ? file.name : "The pasted file";
        this.words.textContent = `${name} is no image that this browser reads: ${wordsOf(error)}`;
      },
    );
  }

  private paint(bitmap: ImageBitmap): void {
    const scale = Math.min(1, 640 / Math.max(bitmap.width, bitmap.height));
    this.preview.width = Math.max(1, Math.round(bitmap.width * scale));
    this.preview.height = Math.max(1, Math.round(bitmap.height * scale));
    this.preview.getContext("2d")!.drawImage(bitmap, 0, 0, this.preview.width, this.preview.height);
    this.preview.hidden = false;
  }
}

/** Take files that are dragged onto the page or pasted, whatever tab is shown: `choose` shows this one. */
export function takeFiles(task: Task, choose: () => Control): void {
  if (!task.image) return;
  const take = (event: Event, files: FileList | undefined): void => {
    const file = [...(files ?? [])].find(({ type }) => type.startsWith("image/")) ?? files?.[0];
    if (!file) return;
    event.preventDefault();
    (choose() as FileControl).open(file);
  };
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); // so that it may be dropped
  });
  document.addEventListener("drop", (event) => take(event, event.dataTransfer?.files));
  document.addEventListener("paste", (event) => take(event, event.clipboardData?.files));
}
