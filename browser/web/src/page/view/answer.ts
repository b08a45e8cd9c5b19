// The answer to one input: the class and the share of each, or the values that a regressor predicts; the time it took.

import { referenceOf, type TensorSpec } from "../bundle";
import { classifyingOutput, median, row, scoresOf, shares } from "../compare";
import type { Model } from "../engines/engine";
import type { Tensors } from "../engines/tensors";
import { argmax } from "../parity";
import type { Answer, Session } from "../session";
import { byId, element, wordsOf } from "./dom";
import { label, short, value } from "./format";

const TIMES = 15; // the time shown is the median of the newest answers
const ALL = 10; // up to so many classes have a bar each, in their order; of more, the likeliest have
const LIKELIEST = 5;
const FEW = 3; // up to so many predicted values are the answer in large figures; of more, a list shows the first
const VALUES = 24;

/** What the source model answered to the same input: known for the bundle's reference inputs. */
export type Source = Tensors | undefined;

export class AnswerView {
  private times: number[] = [];

  constructor(private readonly session: Session) {
    session.addEventListener("change", () => {
      this.times = [];
      byId("time").textContent = "";
    });
  }

  /** `hint`: what to do to get an answer. The bars stay, without a share. */
  clear(hint: string): void {
    byId("answer").classList.add("empty");
    byId("guess").textContent = "–";
    byId("share").textContent = hint;
    const { model, proof } = this.session.current ?? {};
    const output = model && classifyingOutput(this.specsOf(model), proof?.reference.outputs);
    const classes = output?.shape.at(-1) ?? 0;
    const names = Array.from({ length: classes <= ALL ? classes : 0 }, (_, i) => label(output, i));
    byId("bars").className = "";
    byId("bars").replaceChildren(...names.map((name) => bar(name, undefined, false)));
  }

  /** Why the input has no answer. It stays until the next one. */
  fail(error: unknown): void {
    this.clear("");
    byId("share").replaceChildren(element("span", { className: "bad", role: "alert" }, wordsOf(error)));
  }

  show(answer: Answer, source: Source): void {
    byId("answer").classList.remove("empty");
    const specs = this.specsOf(answer.model);
    const { bundle } = this.session;
    const examples = referenceOf(bundle, answer.model.signature)?.outputs ?? answer.outputs;
    const classes = classifyingOutput(specs, examples);
    if (classes) {
      const scores = scoresOf(classes, bundle.manifest.source, examples);
      this.showClasses(shares(row(answer.outputs[classes.name], 0), scores), classes, source);
    } else this.showValues(specs, answer.outputs, source);
    this.times = [...this.times, answer.wall_ms].slice(-TIMES);
    byId("time").textContent = `${short(median(this.times))} ms`;
    byId("time").title = `Median of the last ${this.times.length} answers, with the copies to and from the engine`;
  }

  private specsOf({ signature }: Model): TensorSpec[] {
    return this.session.bundle.manifest.signatures[signature]!.outputs;
  }

  private showClasses(parts: number[], output: TensorSpec, source: Source): void {
    const best = argmax(parts);
    const sources = source?.[output.name];
    const theirs = sources && argmax(row(sources, 0));
    byId("guess").textContent = label(output, best);
    byId("share").textContent =
      theirs === undefined || theirs === best
        ? percent(parts[best]!)
        : `${percent(parts[best]!)}, the source says ${label(output, theirs)}`;
    const order = parts.map((_, i) => i);
    const shown = parts.length <= ALL ? order : order.sort((a, b) => parts[b]! - parts[a]!).slice(0, LIKELIEST);
    byId("bars").ariaLabel = "Probability of each class";
    byId("bars").className = "";
    byId("bars").replaceChildren(...shown.map((i) => bar(label(output, i), parts[i]!, i === best)));
  }

  private showValues(specs: TensorSpec[], outputs: Tensors, source: Source): void {
    const total = specs.reduce((sum, { name }) => sum + (outputs[name]?.data.length ?? 0), 0);
    const lines = firstValues(specs, outputs, source);
    const few = total <= FEW;
    byId("guess").textContent = few ? lines.map(({ number }) => value(number)).join(" · ") : `${total} values`;
    byId("share").textContent = few ? lines.map(({ name }) => name).join(", ") : "";
    byId("bars").ariaLabel = "Predicted values";
    byId("bars").className = "values";
    const more = total - lines.length;
    byId("bars").replaceChildren(...lines.map(predicted), ...(more > 0 ? [element("li", {}, `and ${more} more`)] : []));
  }
}

interface Predicted {
  name: string;
  number: number;
  given: number | undefined;
}

/** As many as are shown: an output may be an image of a million values. */
function firstValues(specs: TensorSpec[], outputs: Tensors, source: Source): Predicted[] {
  const lines: Predicted[] = [];
  for (const { name, labels } of specs) {
    const data = outputs[name]?.data ?? [];
    const theirs = source?.[name]?.data;
    for (let i = 0; i < data.length && lines.length < VALUES; i++)
      lines.push({
        name: labels[i] ?? (data.length === 1 ? name : `${name} [${i}]`),
        number: Number(data[i]),
        given: theirs?.[i] === undefined ? undefined : Number(theirs[i]),
      });
  }
  return lines;
}

function bar(name: string, part: number | undefined, best: boolean): HTMLLIElement {
  const meter = element("meter", { max: 1, value: part ?? 0, ariaHidden: "true" });
  const share = element("span", {}, part === undefined ? "" : percent(part));
  return element("li", { className: best ? "best" : "" }, element("span", { title: name }, name), meter, share);
}

function predicted({ name, number, given }: Predicted): HTMLLIElement {
  const beside = given === undefined ? "" : `source ${value(given)}`;
  return element("li", {}, element("span", {}, name), element("span", {}, value(number)), element("span", {}, beside));
}

const percent = (part: number): string => `${(100 * part).toFixed(1)}%`;
