// The outputs of the chosen variant beside the source model's, for every reference input, and its latency.

import "./proof.css";
import { oneRun } from "../calls";
import { classifyingOutput, compare, median, type Sample } from "../compare";
import type { Parity } from "../parity";
import { showSideBySide } from "../parity/side_view";
import type { Current, Proof, Session } from "../session";
import { imageLayout, paint, unit } from "../try/image";
import { element, wordsOf } from "../view/dom";
import { label, short } from "../view/format";

const RUNS = 30;
const WARMUP = 5;

export function mount(into: HTMLElement, session: Session): void {
  const tiles = element("dl", { className: "tiles" });
  const status = element("p", { id: "status", className: "hint", role: "status" });
  const samples = element("ol", { id: "samples" });
  into.append(tiles, status);
  showSideBySide(into, session);
  into.append(samples);
  const clear = (): void => {
    tiles.replaceChildren(...tilesOf());
    samples.replaceChildren();
    status.textContent = "";
  };
  const refresh = async (): Promise<void> => {
    const { current } = session;
    if (!current?.standing) return clear();
    clear();
    const { variant, standing, proof } = current;
    status.textContent = `Variant ${variant.id} is ${standing.used ? "" : "not "}used: ${standing.text}.`;
    if (proof && Object.keys(proof.reference.outputs).every((name) => name in proof.outputs))
      showProof(session, current, proof, tiles, samples);
    const times = await timesOf(session, current);
    if (!times || current !== session.current) return;
    tiles.querySelector("#median")!.textContent = `${short(median(times))} ms`;
    status.textContent = words(current, times.length);
  };
  const fail = (error: unknown): void => {
    status.textContent = wordsOf(error);
  };
  session.addEventListener("change", clear);
  session.addEventListener("standing", () => refresh().catch(fail));
  refresh().catch(fail);
}

/** Wall times in milliseconds; undefined where the variant may not be used or another was chosen meanwhile. */
function timesOf(session: Session, current: Current): Promise<number[] | undefined> {
  return session.exclusively(async () => {
    const { model, standing, proof } = current;
    if (!model || !standing?.used || !proof || current !== session.current) return undefined;
    return (await model.run(oneRun(proof.reference, model.batch), WARMUP, RUNS)).wall_ms;
  });
}

function words({ variant, engine, model, proof }: Current, runs: number): string {
  const batch = proof!.reference.whole ? 1 : model!.batch;
  const what = batch === 1 ? "one sample" : `one batch of ${batch} samples`;
  return (
    `The latency of ${variant.id} is the median of ${runs} runs of ${what} by ${engine.name}, ` +
    "including the copies to and from the engine's memory."
  );
}

function tilesOf(): HTMLElement[] {
  const tile = (title: string, id: string): HTMLElement =>
    element("div", {}, element("dt", {}, title), element("dd", { id }, "–"));
  return [
    tile("Top-1 agreement", "agreement"),
    tile("Max absolute error", "max-abs"),
    tile("Output SNR", "snr"),
    tile("Median latency", "median"),
  ];
}

function showProof(session: Session, current: Current, proof: Proof, tiles: HTMLElement, list: HTMLElement): void {
  const specs = session.bundle.manifest.signatures[current.model!.signature]!;
  const { samples, agree, maxAbs } = compare(proof.outputs, proof.reference, specs.outputs);
  const agreement = tiles.querySelector("#agreement")!;
  agreement.textContent = agree === undefined ? "n/a" : `${agree} of ${samples.length}`;
  agreement.className = agree === undefined ? "" : agree === samples.length ? "good" : "bad";
  tiles.querySelector("#max-abs")!.textContent = short(maxAbs);
  tiles.querySelector("#snr")!.textContent = snr(proof.rows);
  const pictures = specs.inputs.flatMap((spec) => {
    const examples = proof.reference.inputs[spec.name]!;
    const layout = imageLayout(spec, examples);
    return layout ? [(i: number) => picture(i, unit(examples, i, layout), layout)] : [];
  });
  const output = classifyingOutput(specs.outputs, proof.reference.outputs);
  const name = (index: number): string => label(output, index);
  list.replaceChildren(...samples.map((sample, i) => card(sample, i, name, pictures[0]?.(i))));
}

function snr(rows: Parity[]): string {
  const noisy = rows.flatMap(({ snr_db }) => snr_db ?? []);
  return noisy.length ? `${Math.min(...noisy).toFixed(1)} dB` : "exact";
}

function picture(i: number, values: number[], layout: Parameters<typeof paint>[2]): HTMLCanvasElement {
  const canvas = element("canvas", { role: "img", ariaLabel: `Reference image ${i + 1}` });
  paint(canvas, values, layout);
  return canvas;
}

/** The variant's class beside the source model's, and the error. */
function card(
  { ours, source, maxAbs }: Sample,
  i: number,
  name: (index: number) => string,
  image: HTMLCanvasElement | undefined,
): HTMLLIElement {
  const same = ours === source;
  const verdict =
    ours === undefined ? `Sample ${i + 1}` : same ? `${name(ours)} ✓` : `${name(ours)} ≠ ${name(source!)}`;
  const classes = ours === undefined ? "" : `Variant: ${name(ours)}. Source model: ${name(source!)}. `;
  const title = `${classes}Max absolute error: ${short(maxAbs)}.`;
  const text = element("p", { className: same ? "" : "bad" }, verdict);
  const off = element("p", {}, `±${short(maxAbs)}`);
  return element("li", { className: same ? "" : "differs", title }, ...(image ? [image] : []), text, off);
}
