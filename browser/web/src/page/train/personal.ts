// The personal model: the trainable variant with weights that this tab trained, kept in this browser.

import { inferenceSignature, type Variant } from "../bundle";
import type { Model } from "../engines/engine";
import { LITERT_WASM } from "../engines/litert";
import { batchOf, timed } from "../engines/tensors";
import type { Current, Session } from "../session";
import { classesOf, openTrainer } from "./open";
import type { Storage } from "./storage";
import type { Trainer } from "./trainer";
import { countOf } from "./weights_row";

export class Personal {
  private opened: Promise<Trainer> | undefined;
  private before: Current | undefined;
  /** The weights of the file. */
  private original: Float32Array<ArrayBuffer> | undefined;

  constructor(
    private readonly session: Session,
    private readonly variant: Variant,
    private readonly storage: Storage,
    /** Of the file: weights that were kept belong to one file. */
    private readonly sha256: string,
  ) {}

  /** With the weights that were kept, if there are any. */
  trainer(): Promise<Trainer> {
    this.opened ??= this.open();
    this.opened.catch(() => {
      this.opened = undefined; // a later try starts anew
    });
    return this.opened;
  }

  /** Keep the weights as they are now. */
  async keep(): Promise<void> {
    await this.storage.keepWeights({ file: this.sha256, row: await (await this.trainer()).getWeights() });
  }

  /** Take the weights of the file again. */
  async reset(): Promise<void> {
    const trainer = await this.trainer();
    await trainer.setWeights(this.original!);
    await this.storage.keepWeights(undefined);
  }

  /** Let the first screen answer by these weights, as they are and as they will be. */
  async use(): Promise<void> {
    const trainer = await this.trainer();
    const { bundle } = this.session;
    const signature = inferenceSignature(bundle, this.variant) ?? "infer";
    const program = trainer.inference;
    const { current } = this.session;
    if (current && !current.personal) this.before = current;
    const model: Model = {
      engine: LITERT_WASM,
      variant: this.variant,
      signature,
      batch: batchOf(program),
      program,
      cold: { download_ms: 0, init_ms: 0, compile_ms: 0 },
      run: (inputs, warmup, runs) => timed(program, inputs, warmup, runs),
      close() {}, // the trainer stays
    };
    await this.session.usePersonal(model, {
      used: true,
      text: "trained in this tab, so its answers differ from the source model's on purpose",
    });
  }

  /** Let the first screen answer by the variant that it had before. */
  async useOriginal(): Promise<void> {
    const { engine, variant } = this.before ?? { engine: LITERT_WASM, variant: this.variant };
    await this.session.choose(engine, variant);
  }

  private async open(): Promise<Trainer> {
    const classes = classesOf(this.session.bundle, this.variant)!.length;
    const trainer = await openTrainer(this.session, this.variant, classes);
    this.original = await trainer.getWeights();
    const kept = await this.storage.weights();
    if (kept?.file === this.sha256 && kept.row.length === countOf(trainer.weights)) await trainer.setWeights(kept.row);
    return trainer;
  }
}
