// This tab as a device of a federation: it asks its own server for work
// (federated/edgeloop/federated/gateway/tab_requests.py), trains on the images of this browser, and sends weights back.
// It goes on by itself after a lost network and a place that was lost. A server that was started anew has another token:
// the tab ends, and its user opens the new address.

import { routeUrl } from "../routes";
import { wordsOf } from "../view/dom";
import { type Frame, readFrame, writeFrame } from "./frame";
import { ask, Final, Gone, Refused, ROUTE } from "./gateway_requests";
import type { Labelled, Trainer } from "./trainer";

const BEAT_MS = 5000; // between two signs of life while it works
const [FIRST_MS, LONGEST_MS] = [1000, 30000]; // waits after failures, doubled each time

export type Stage = "off" | "joining" | "waiting" | "training" | "measuring" | "retrying" | "ended";

/** One message that is sent from this tab. Signs of life, which name the tab alone, are none. */
export interface Message {
  kind: "join" | "train" | "evaluate" | "failed";
  bytes: number;
  round?: number;
  examples?: number;
  /** L2 norm of what the training added to the weights. */
  norm?: number;
}

export interface Means {
  /** Opened when the tab first trains. */
  trainer(): Promise<Trainer>;
  /** Those that are trained on, and all of them. */
  samples(): Promise<{ train: Labelled; all: Labelled }>;
  /** One at a time with the other work of the page. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** `words` says what happens, `progress` from 0 to 1 how far a training is. */
  show(stage: Stage, words: string, progress?: number): void;
  /** Note what is about to be sent; the result notes whether the server counted it. */
  record(message: Message): Promise<(counted: boolean) => Promise<void>>;
  /** SHA-256 of the file that is trained. */
  model: string;
  /** The same for all tabs of this browser, which has one vote. */
  client: string;
}

/** The work is not wanted any more: the user paused, the server waits for it no longer, or the place is lost. */
class Unwanted extends Error {}

type Counted = (counted: boolean) => Promise<void>;

export class Federation {
  private tab: string | undefined;
  private turns = 0;
  private running: number | undefined; // which of the turns
  private wake: (() => void) | undefined;

  constructor(private readonly means: Means) {}

  get active(): boolean {
    return this.running !== undefined;
  }

  /** Take part until `pause`, or until the server refuses. The user has agreed. */
  async start(): Promise<void> {
    const turn = ++this.turns;
    this.running = turn;
    let failures = 0;
    const goesOn = (): boolean => this.running === turn;
    const join = this.joining(goesOn);
    while (goesOn()) {
      try {
        const tab = this.tab ?? (await join());
        await this.round(tab, goesOn);
        failures = 0;
      } catch (error) {
        if (!goesOn()) break;
        const words = wordsOf(error);
        if (error instanceof Final) {
          this.running = undefined;
          this.leave();
          return this.means.show("ended", words);
        }
        if (error instanceof Unwanted) continue;
        this.means.show("retrying", words);
        await this.wait(failures++);
      }
    }
  }

  /** Leave the federation; a training that runs ends at its next step. */
  pause(): void {
    this.running = undefined;
    this.wake?.();
    this.leave();
    this.means.show("off", "Paused. This tab takes no part, and nothing is sent.");
  }

  /** Tell the server that the tab goes, also while the page is closed. */
  leave(): void {
    if (this.tab) leave(this.tab);
    this.tab = undefined;
  }

  /** Asks for a place. It is one message of the record until it is answered, however often it is sent. */
  private joining(goesOn: () => boolean): () => Promise<string> {
    let counted: Counted | undefined;
    return async () => {
      this.means.show("joining", "Asking for a place in the federation.");
      const cores = navigator.hardwareConcurrency ?? 1;
      const body = JSON.stringify({ client: this.means.client, cores, model: this.means.model });
      counted ??= await this.recorded({ kind: "join", bytes: body.length });
      if (!goesOn()) throw new Unwanted();
      let tab: string;
      try {
        ({ tab } = (await (await ask("join", body)).json()) as { tab: string });
      } catch (error) {
        if (error instanceof Final || error instanceof Refused) await counted(false);
        throw error instanceof Refused ? new Final(error.message) : error;
      }
      const heard = counted;
      counted = undefined;
      if (goesOn()) this.tab = tab;
      else leave(tab); // the user paused meanwhile
      await heard(true);
      if (!goesOn()) throw new Unwanted();
      return tab;
    };
  }

  /** Ask once for work, and do it. */
  private async round(tab: string, goesOn: () => boolean): Promise<void> {
    const response = await this.asTab(tab, "poll", JSON.stringify({ tab }));
    if (!response.headers.get("Content-Type")?.startsWith("application/octet-stream")) {
      const { connected, said } = (await response.json()) as { connected: boolean; said: string };
      const words = connected ? "Connected. Waiting for the next round." : `Not connected to the federation: ${said}.`;
      if (goesOn()) this.means.show("waiting", words);
      return;
    }
    const work = readFrame(new Uint8Array(await response.arrayBuffer()));
    // signs of life until the answer is heard
    await this.attended(tab, String(work.header.work), goesOn, (wanted) => this.answer(tab, work, goesOn, wanted));
  }

  private async answer(tab: string, work: Frame, goesOn: () => boolean, wanted: () => boolean): Promise<void> {
    const { work: id, base, kind } = work.header;
    const head = { tab, work: id, base, kind };
    const round = work.header.round === undefined ? undefined : Number(work.header.round);
    try {
      const { numbers, row } = await this.means.exclusively(() => this.work(work, wanted));
      const body = writeFrame({ ...head, ...numbers }, row);
      const told = { round, bytes: body.length, examples: numbers.examples };
      const norm = row && distance(row, work.row);
      await this.deliver(tab, body, row ? { kind: "train", ...told, norm } : { kind: "evaluate", ...told }, goesOn);
    } catch (error) {
      if (error instanceof Unwanted || error instanceof Gone || error instanceof Final || !goesOn()) throw error;
      // the words may quote the data: the server learns that it failed, the user why
      this.means.show("waiting", `This round failed: ${wordsOf(error)}.`);
      const body = writeFrame({ ...head, failed: "the page shows its user why" });
      await this.deliver(tab, body, { kind: "failed", round, bytes: body.length }, goesOn).catch((other) => {
        throw other instanceof Refused ? new Final(other.message) : other;
      });
    }
  }

  /** Send an answer, the same one again until the gateway has heard it. Throws Refused where it never will, and Gone. */
  private async deliver(
    tab: string,
    body: Uint8Array<ArrayBuffer>,
    message: Message,
    goesOn: () => boolean,
  ): Promise<void> {
    if (!goesOn()) throw new Unwanted();
    const note = await this.recorded(message);
    for (let failures = 0; goesOn(); failures++) {
      let counted: boolean;
      try {
        ({ counted } = (await (await this.asTab(tab, "reply", body)).json()) as { counted: boolean });
      } catch (error) {
        const ends = error instanceof Gone || error instanceof Final || error instanceof Refused;
        if (ends) await note(false);
        if (ends || !goesOn()) throw error;
        this.means.show("retrying", wordsOf(error));
        await this.wait(failures);
        continue;
      }
      return note(counted && message.kind !== "failed");
    }
    throw new Unwanted();
  }

  /** Without its record nothing is sent. */
  private async recorded(message: Message): Promise<Counted> {
    const fails = (error: unknown): never => {
      throw new Final(`This browser cannot record what is sent, so this tab takes no part: ${wordsOf(error)}.`);
    };
    const note = await this.means.record(message).catch(fails);
    return (counted) => note(counted).catch(fails);
  }

  /** Say every few seconds that the tab lives, while it waits for its turn and while it works. `wanted` turns false when
   * nobody waits for the answer any more. */
  private async attended<T>(
    tab: string,
    id: string,
    goesOn: () => boolean,
    work: (wanted: () => boolean) => Promise<T>,
  ): Promise<T> {
    let open = true;
    const say = async (): Promise<void> => {
      if (!goesOn()) return;
      try {
        const response = await this.asTab(tab, "poll", JSON.stringify({ tab, working: id }));
        open = ((await response.json()) as { wanted: boolean }).wanted;
      } catch (error) {
        open = !(error instanceof Gone || error instanceof Final); // a lost network may come back before the end
      }
    };
    const beat = setInterval(say, BEAT_MS);
    try {
      return await work(() => open && goesOn());
    } finally {
      clearInterval(beat);
    }
  }

  private async work({ header, row }: Frame, wanted: () => boolean) {
    const goOn = (): void => {
      if (!wanted()) throw new Unwanted();
    };
    goOn();
    const trainer = await this.means.trainer();
    const { train, all } = await this.means.samples();
    await trainer.setWeights(row);
    goOn();
    if (header.kind === "evaluate") {
      this.means.show("measuring", "Measuring the federation's weights on the images of this browser.");
      return finite({ ...(await trainer.evaluate(all, goOn)) });
    }
    const words = `Training in round ${header.round}, on ${train.labels.length} images of this browser.`;
    const { losses, steps, examples, seconds } = await trainer.train(train, {
      epochs: Number(header.epochs),
      lr: Number(header.lr),
      seed: header.seed as number[],
      step: ({ step, steps }) => {
        goOn();
        this.means.show("training", words, step / steps);
      },
    });
    return finite({ loss: losses.at(-1)!, steps, examples, seconds }, await trainer.getWeights());
  }

  /** A request of an admitted tab; a gateway that knows it no more is asked for a place again. */
  private async asTab(tab: string, path: string, body: BodyInit): Promise<Response> {
    try {
      return await ask(path, body);
    } catch (error) {
      if ((error instanceof Gone || error instanceof Final) && this.tab === tab) this.tab = undefined; // not that of a later turn
      throw error;
    }
  }

  /** Longer after each of the failures in a row, by chance between half and all of it. */
  private wait(failures: number): Promise<void> {
    const ms = Math.min(LONGEST_MS, FIRST_MS * 2 ** failures) * (0.5 + Math.random() / 2);
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function leave(tab: string): void {
  fetch(routeUrl(ROUTE, "leave"), { method: "POST", keepalive: true, body: JSON.stringify({ tab }) }).catch(
    () => undefined, // the server notices by itself
  );
}

/** What is sent; JSON has no NaN, and no server takes one. */
function finite(numbers: Record<string, number>, row?: Float32Array<ArrayBuffer>) {
  const wrong = Object.entries(numbers).find(([, value]) => !Number.isFinite(value));
  if (wrong) throw new Error(`the ${wrong[0]} is ${wrong[1]}`);
  if (row && !row.every(Number.isFinite)) throw new Error("the weights hold NaN or Infinity");
  return { numbers, row };
}

/** The L2 norm of a - b. */
export function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum);
}
