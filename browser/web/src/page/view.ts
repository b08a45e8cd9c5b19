// What the page shows. Text goes in as text, never as HTML: names and labels come from a bundle someone else made.

import { type Bundle, bytesOfVariant, provedDifference, type TensorSpec, type Variant } from "./bundle";
import type { Comparison, Sample } from "./compare";
import { type Layout, paint } from "./image";
import type { Parity } from "./parity";
import { initialStatus, runsHere, type Standing } from "./standing";

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T; // index.html has them all
}

export const show = (id: string): void => byId(id).removeAttribute("hidden");

export const hide = (id: string): void => byId(id).setAttribute("hidden", "");

export function showName({ manifest }: Bundle): void {
  document.title = `${manifest.name} · edgeloop`;
  byId("name").textContent = manifest.name;
  byId("about").textContent = `Release ${manifest.version}, converted from ${manifest.source.file}`;
}

export function showProblem(error: unknown): void {
  document.body.dataset.state = "error";
  byId("problem").textContent = error instanceof Error ? error.message : String(error);
  show("problem");
}

/** The table of variants; `choose` is called with the one a person picks. */
export function showVariants(bundle: Bundle, chosen: Variant | undefined, choose: (variant: Variant) => void): void {
  const { variants } = bundle.manifest;
  const largest = Math.max(...variants.map((variant) => bytesOfVariant(bundle.manifest, variant)));
  byId("variants").replaceChildren(
    ...variants.map((variant) => {
      const bytes = bytesOfVariant(bundle.manifest, variant);
      const off = provedDifference(bundle, variant);
      const notes = (variant.notes ?? []).map((note) => element("p", { className: "note" }, note));
      const id = runsHere(variant) ? radio(variant, variant === chosen, choose) : variant.id;
      const name = element("th", { scope: "row" }, id, ...notes);
      const meter = element("meter", { max: largest, value: bytes, ariaHidden: "true" });
      const row = element(
        "tr",
        { className: runsHere(variant) ? "" : "elsewhere" },
        name,
        element("td", {}, variant.scheme),
        element("td", {}, variant.format),
        element("td", {}, element("span", { className: "size" }, meter, element("span", {}, kilobytes(bytes)))),
        element("td", {}, off === undefined ? "–" : short(off)),
        element("td", {}, variant.requires.runtimes?.join(", ") || "no runtime"),
        element("td", { className: "standing" }, initialStatus(variant)),
      );
      row.dataset.variant = variant.id;
      return row;
    }),
  );
  show("forms");
}

function radio(variant: Variant, checked: boolean, choose: (variant: Variant) => void): HTMLLabelElement {
  const input = element("input", { type: "radio", name: "variant", value: variant.id, checked });
  input.addEventListener("change", () => choose(variant));
  return element("label", {}, input, variant.id);
}

export function markChosen(variant: Variant): void {
  for (const row of rowsOf()) row.classList.toggle("chosen", row.dataset.variant === variant.id);
}

const rowsOf = (): HTMLElement[] => [...byId("variants").children] as HTMLElement[];

/** Whether the page uses the variant, and why: in its row of the table, and below the tiles. */
export function showStanding(variant: Variant, { used, text }: Standing): void {
  const cell = rowsOf()
    .find((row) => row.dataset.variant === variant.id)
    ?.querySelector<HTMLElement>(".standing");
  const textContent = used ? text : `not used: ${text}`;
  if (cell) Object.assign(cell, { textContent, className: `standing ${used ? "good" : "bad"}` });
  byId("status").textContent = `Variant ${variant.id} is ${used ? "" : "not "}used: ${text}.`;
}

/** Remove the results of the variant chosen before. */
export function clearProof(): void {
  for (const id of ["agreement", "max-abs", "snr", "median"])
    Object.assign(byId(id), { textContent: "–", className: "" });
  byId("samples").replaceChildren();
  byId("status").textContent = "";
  hide("problem");
  show("proof");
}

export function showComparison({ agree, maxAbs, samples }: Comparison, proof: Parity[]): void {
  const agreement = byId("agreement");
  agreement.textContent = agree === undefined ? "n/a" : `${agree} of ${samples.length}`;
  agreement.className = agree === undefined ? "" : agree === samples.length ? "good" : "bad";
  byId("max-abs").textContent = short(maxAbs);
  const noisy = proof.flatMap(({ snr_db }) => snr_db ?? []);
  byId("snr").textContent = noisy.length ? `${Math.min(...noisy).toFixed(1)} dB` : "exact";
}

export function showTime(medianMs: number, runs: number, batch: number, variant: Variant): void {
  byId("median").textContent = `${medianMs.toPrecision(2)} ms`;
  const what = batch === 1 ? "one sample" : `one batch of ${batch} samples`;
  byId("status").textContent =
    `The latency of ${variant.id} is the median of ${runs} runs of ${what} on one thread, ` +
    "including the copies to and from WebAssembly memory.";
}

/** One card per reference sample: its image if it has one, the variant's class beside the source model's, the error. */
export function showSamples(
  samples: Sample[],
  output: TensorSpec | undefined,
  image: { layout: Layout; of: (i: number) => number[] } | undefined,
): void {
  byId("samples").replaceChildren(
    ...samples.map(({ ours, source, maxAbs }, i) => {
      const same = ours === source;
      const verdict =
        ours === undefined
          ? `Sample ${i + 1}`
          : same
            ? `${label(output, ours)} ✓`
            : `${label(output, ours)} ≠ ${label(output, source!)}`;
      const picture = element("canvas", { role: "img", ariaLabel: `Reference image ${i + 1}` });
      if (image) paint(picture, image.of(i), image.layout);
      const classes =
        ours === undefined ? "" : `Variant: ${label(output, ours)}. Source model: ${label(output, source!)}. `;
      const title = `${classes}Max absolute error: ${short(maxAbs)}.`;
      const words = element("p", { className: same ? "" : "bad" }, verdict);
      return element(
        "li",
        { className: same ? "" : "differs", title },
        ...(image ? [picture] : []),
        words,
        element("p", {}, `±${short(maxAbs)}`),
      );
    }),
  );
}

/** One bar per class. `parts` is empty until something is drawn. */
export function showShares(parts: number[], count: number, output: TensorSpec | undefined): void {
  const best = parts.length ? parts.indexOf(Math.max(...parts)) : undefined;
  byId("guess").textContent = best === undefined ? "–" : label(output, best);
  byId("bars").replaceChildren(
    ...Array.from({ length: count }, (_, i) => {
      const part = parts[i] ?? 0;
      const meter = element("meter", { max: 1, value: part, ariaHidden: "true" });
      return element(
        "li",
        {},
        element("span", {}, label(output, i)),
        meter,
        element("span", {}, best === undefined ? "" : `${(100 * part).toFixed(1)}%`),
      );
    }),
  );
}

export const label = (output: TensorSpec | undefined, index: number): string => output?.labels[index] ?? String(index);

const kilobytes = (bytes: number): string =>
  bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;

const short = (value: number): string =>
  value === 0 ? "0" : value < 1e-3 ? value.toExponential(1) : value.toPrecision(2);
