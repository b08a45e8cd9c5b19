// An open model in, whether it still answers as the source model does out: at load, and again every Nth run, for a runtime
// may be right on its first inference alone (https://github.com/google-ai-edge/LiteRT/issues/8065).

import { type Bundle, type Reference, referenceOf } from "../bundle";
import { answers } from "../calls";
import type { Model, Tensors } from "../engines/engine";
import { compare, isClassifier, judgedAs, needs, type Parity, reason } from "../parity";

/** What a badge shows. */
export interface ParityState {
  passed: boolean;
  /** The largest absolute error of any output in any check; infinite where an output could not be compared. */
  max_abs: number;
  checks: number;
  /** The check that failed first, counted from 1. It stays: a later right answer does not make the engine right. */
  failed_at?: number;
  /** How far the answers agree, or what is wrong with them: a sentence without a full stop. */
  text: string;
}

export type Answering = Pick<Model, "variant" | "signature" | "batch" | "run">;

export class ParityWatch {
  /** Of the checks so far; undefined before the first, and where the bundle has no reference inputs. */
  state: ParityState | undefined;
  /** The outputs of the last check. */
  outputs: Tensors | undefined;
  readonly reference: Reference | undefined;
  private runsSinceCheck = 0;

  /** `every`: runs between two checks. */
  constructor(
    private readonly bundle: Bundle,
    private readonly model: Answering,
    private readonly every = 50,
  ) {
    this.reference = referenceOf(bundle, model.signature);
  }

  /** Count runs of the model. True: it is time for a check. */
  ran(runs: number): boolean {
    this.runsSinceCheck += runs;
    return this.reference !== undefined && this.runsSinceCheck >= this.every;
  }

  /** Run the reference inputs through the model once more. An error of the engine is a wrong answer. */
  async check(): Promise<ParityState | undefined> {
    if (!this.reference) return undefined;
    this.runsSinceCheck = 0;
    let rows: Parity[] = [];
    let error: string | undefined;
    try {
      this.outputs = await answers(this.model, this.reference);
      rows = this.judge(this.reference, this.outputs);
    } catch (thrown) {
      error = `the engine failed: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
    }
    this.state = nextState(this.state, rows, error, this.floor());
    return this.state;
  }

  /** One record for each output, judged by the floor of the variant's scheme. */
  private judge(reference: Reference, outputs: Tensors): Parity[] {
    const { manifest } = this.bundle;
    const labelled = manifest.signatures[this.model.signature]!.outputs.some(({ labels }) => labels.length);
    const classifier = isClassifier(reference.outputs, labelled);
    return compare(this.model.variant.scheme, reference.outputs, outputs, classifier, manifest.source);
  }

  private floor(): string {
    const { scheme } = this.model.variant;
    return `${scheme} requires ${needs(judgedAs(scheme, this.bundle.manifest.source))}`;
  }
}

/** The state after one more check. `error`: the engine threw it. */
export function nextState(
  before: ParityState | undefined,
  rows: readonly Parity[],
  error: string | undefined,
  floor: string,
): ParityState {
  const checks = (before?.checks ?? 0) + 1;
  const max_abs = Math.max(before?.max_abs ?? 0, ...rows.map((row) => row.max_abs), error === undefined ? 0 : Infinity);
  if (before && !before.passed) return { ...before, checks, max_abs };
  const failed = rows.find((row) => !row.passed);
  if (error !== undefined) return { passed: false, max_abs, checks, failed_at: checks, text: error };
  if (failed) return { passed: false, max_abs, checks, failed_at: checks, text: `${reason(failed)}. ${floor}` };
  return { passed: true, max_abs, checks, text: rows.map(reason).join("; ") };
}
