// What the page works on now: the bundle, the engines of this browser and the model that is open. Panels listen to it.

import { type Bundle, isWhole, type Reference, referenceOf, type Variant } from "./bundle";
import { answers, callOf, stack } from "./calls";
import { cut } from "./compare";
import { ENGINES, type Engine, type Model } from "./engines/engine";
import { rows, type Tensors } from "./engines/tensors";
import { compare, isClassifier, type Parity } from "./parity";
import { type Standing, standingAfterError, standingAfterRun } from "./standing";

/** The model's answers to the bundle's reference inputs. */
export interface Proof {
  reference: Reference;
  outputs: Tensors;
  rows: Parity[];
}

export interface Current {
  readonly engine: Engine;
  readonly variant: Variant;
  /** Undefined until it is open, and when the engine cannot run the variant. */
  model?: Model;
  /** Undefined until the model is judged. */
  standing?: Standing;
  /** Undefined when the bundle has no reference inputs, or the model did not run them. */
  proof?: Proof;
  /** The weights were trained in this tab, so the reference outputs say nothing of the model. */
  personal?: boolean;
}

export interface Answer {
  readonly model: Model;
  readonly inputs: Tensors;
  /** Of the one sample that was asked; its first axis has length 1. */
  readonly outputs: Tensors;
  readonly wall_ms: number;
}

interface Events {
  /** Another engine or variant was chosen; its model is not open yet. */
  change: Current;
  /** The model was judged, at opening or again. */
  standing: Current;
  answer: Answer;
  /** All engines were asked whether this browser has them. */
  engines: undefined;
}

export type Listener<K extends keyof Events> = (event: CustomEvent<Events[K]>) => void;

export class Session {
  current?: Current;
  /** What was chosen last: it may wait for what runs now. */
  chosen?: Pick<Current, "engine" | "variant">;
  /** The newest one. */
  answer?: Answer;
  /** The newest standing of each variant that was opened, by its id. */
  readonly standings = new Map<string, Standing>();
  private readonly events = new EventTarget();
  private choices = 0;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(
    readonly bundle: Bundle,
    private readonly missing = new Map<string, string | undefined>(),
  ) {}

  /** A session that has asked as many engines as it takes to find one that can run a variant. */
  static async of(bundle: Bundle): Promise<Session> {
    const session = new Session(bundle);
    for (const engine of ENGINES) {
      session.missing.set(engine.id, await engine.missing());
      if (session.first()) break;
    }
    return session;
  }

  /** Ask the engines that were not asked yet, which may take a tenth of a second. Panels are opened after this. */
  async askEngines(): Promise<void> {
    for (const { id, missing } of ENGINES) if (!this.missing.has(id)) this.missing.set(id, await missing());
    this.emit("engines", undefined);
  }

  /** Engine id -> why this browser has it not; undefined: it has. */
  get engines(): ReadonlyMap<string, string | undefined> {
    return this.missing;
  }

  /** Why the pair cannot be chosen; undefined: it can be tried. */
  refusal(engine: Engine, variant: Variant): string | undefined {
    if (!this.missing.has(engine.id)) return "Not asked yet.";
    return this.missing.get(engine.id) ?? engine.refuses(this.bundle, variant);
  }

  /** The engine to run a variant: the one chosen last if it can, else the first that can. */
  engineFor(variant: Variant): Engine | undefined {
    const able = ENGINES.filter((engine) => this.refusal(engine, variant) === undefined);
    return able.find((engine) => engine === this.chosen?.engine) ?? able[0];
  }

  /** The first pair that can be tried, by the order of engines and variants. */
  first(): { engine: Engine; variant: Variant } | undefined {
    for (const engine of ENGINES)
      for (const variant of this.bundle.manifest.variants)
        if (this.refusal(engine, variant) === undefined) return { engine, variant };
    return undefined;
  }

  /** Open the pair and judge it, after what runs now. Of choices that wait, only the newest is opened. */
  choose(engine: Engine, variant: Variant): Promise<void> {
    const choice = ++this.choices;
    this.chosen = { engine, variant };
    return this.exclusively(async () => {
      if (choice !== this.choices) return;
      this.current?.model?.close();
      this.current = { engine, variant };
      this.emit("change", this.current);
      try {
        this.current.model = await engine.open(this.bundle, variant);
        await this.judge();
      } catch (error) {
        this.report(standingAfterError(error, engine)); // a result to show: the page goes on with the others
      }
    });
  }

  /** Answer by a model that was trained in this tab. */
  usePersonal(model: Model, standing: Standing): Promise<void> {
    ++this.choices;
    this.chosen = { engine: model.engine, variant: model.variant };
    return this.exclusively(async () => {
      this.current?.model?.close();
      this.current = { engine: model.engine, variant: model.variant, model, personal: true };
      this.emit("change", this.current);
      this.current.standing = standing; // of no variant of the bundle
      this.emit("standing", this.current);
    });
  }

  /** Run the reference inputs by the open model and report its standing. Call it inside `exclusively`. */
  async judge(): Promise<void> {
    const { engine, model, variant, personal } = this.current!;
    if (personal) return;
    const { source, signatures } = this.bundle.manifest;
    const reference = referenceOf(this.bundle, model!.signature);
    if (!reference) return this.report(standingAfterRun(variant, undefined, source, engine));
    const outputs = await answers(model!, reference);
    const labelled = signatures[model!.signature]!.outputs.some(({ labels }) => labels.length);
    const classifier = isClassifier(reference.outputs, labelled);
    const parity = compare(variant.scheme, reference.outputs, outputs, classifier, source);
    this.report(standingAfterRun(variant, parity, source, engine), { reference, outputs, rows: parity });
  }

  /** What the page says of the current model from now on; without a proof, one of an earlier check goes. */
  report(standing: Standing, proof?: Proof): void {
    Object.assign(this.current!, { standing, proof });
    this.standings.set(this.current!.variant.id, standing);
    this.emit("standing", this.current!);
  }

  /** Run one sample, whose arrays have a first axis of length 1, by the current model. Fires "answer".
   * Undefined where the model may not be used. */
  ask(inputs: Tensors): Promise<Answer | undefined> {
    return this.exclusively(async () => {
      const { model, standing } = this.current ?? {};
      if (!model || !standing?.used) return undefined;
      const whole = isWhole(this.bundle, model.signature);
      const { outputs, wall_ms } = await model.run(whole ? callOf(inputs, 0) : rows(inputs, model.batch));
      const one = whole ? stack([outputs]) : cut(outputs, 1);
      const answer: Answer = { model, inputs, outputs: one, wall_ms: wall_ms[0]! };
      this.answer = answer;
      this.emit("answer", answer);
      return answer;
    });
  }

  /** Runs go through this one at a time, so that nothing disturbs a race or a training. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.turn.then(work);
    this.turn = result.catch(() => undefined); // whoever asked for the work has its error
    return result;
  }

  addEventListener<K extends keyof Events>(type: K, listener: Listener<K>): void {
    this.events.addEventListener(type, listener as EventListener);
  }

  removeEventListener<K extends keyof Events>(type: K, listener: Listener<K>): void {
    this.events.removeEventListener(type, listener as EventListener);
  }

  private emit<K extends keyof Events>(type: K, detail: Events[K]): void {
    this.events.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
