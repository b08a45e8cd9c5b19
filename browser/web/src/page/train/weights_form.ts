// The trained weights: use them in the first screen, save them for Python, load them, or go back to the bundle's.

import { element, wordsOf } from "../view/dom";
import { onClick, type Training } from "./panel";
import { readWeights, writeWeights } from "./weights_file";

export function weightsForm(training: Training): HTMLElement {
  const { session, personal, say } = training;
  const { name, weights } = session.bundle.manifest;
  const use = element("input", { type: "checkbox", id: "train-use" });
  const save = element("button", { type: "button", className: "quiet", id: "train-export" }, "Export .npz");
  const reset = element("button", { type: "button", className: "quiet", id: "train-reset" }, "Reset");
  const file = element("input", { type: "file", accept: ".npz", id: "train-import" });
  use.addEventListener("change", () => {
    const done = use.checked
      ? session.exclusively(() => personal.trainer()).then(() => personal.use())
      : personal.useOriginal();
    done.catch((error) => say(wordsOf(error)));
  });
  session.addEventListener("change", ({ detail }) => {
    use.checked = detail.personal === true;
  });
  onClick(save, training, async () => {
    const row = await session.exclusively(async () => (await personal.trainer()).getWeights());
    download(`${name.replace(/[^\w.-]+/g, "-")}-weights.npz`, writeWeights(row, weights!));
    say("Exported. In Python: model.set_weights([z[name] for name in sorted(z.files)]) with z = numpy.load(FILE).");
  });
  onClick(reset, training, async () => {
    await session.exclusively(() => personal.reset());
    if (session.current?.personal) await personal.use();
    say("The weights are those of the bundle again.");
  });
  file.addEventListener("change", async () => {
    try {
      const row = readWeights(new Uint8Array(await file.files![0]!.arrayBuffer()), weights!);
      await session.exclusively(async () => {
        await (await personal.trainer()).setWeights(row);
        await personal.keep();
      });
      if (session.current?.personal) await personal.use();
      say("Imported.");
    } catch (error) {
      say(wordsOf(error));
    } finally {
      file.value = "";
    }
  });
  return element(
    "fieldset",
    { className: "part" },
    element("legend", {}, "Weights"),
    element("label", {}, use, " Answer by these weights in the first screen"),
    element("div", { className: "row" }, save, reset),
    element("label", {}, "Import .npz ", file),
  );
}

function download(name: string, bytes: Uint8Array): void {
  const url = URL.createObjectURL(new Blob([new Uint8Array(bytes)]));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
