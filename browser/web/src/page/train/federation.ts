// This tab as a device of a federation: it asks its own server for work (federated/edgeloop/federated/gateway/routes.py),
// trains on the images of this browser, and sends weights back. It survives whatever happens to the server.

import { routeUrl } from "../routes";
import { wordsOf } from "../view/dom";
import { type Frame, readFrame, writeFrame } from "./frame";
import type { Labelled, Trainer } from "./trainer";

export const ROUTE = "federate";
const BEAT_MS = 5000; // between two signs of life while it works
const [FIRST_MS, LONGEST_MS] = [1000, 30000]; // waits after failures, doubled each time

export type Stage = "off" | "joining" | "waiting" | "training" | "measuring" | "retrying" | "ended";

/** What a round of this tab added to the federation. */
export interface Contribution {
  round: number;
  bytes: number;
  examples: number;
  norm: number;
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
  sent(contribution: Contribution): Promise<void>;
  /** The same for all tabs of this browser, which has one vote. */
  client: string;
}

/** Whoever waits here is not asked again: the words say why. */
class Final extends Error {}

/** The training is not wanted any more: the round ended without it, or the user paused. */
class Unwanted extends Error {}

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
    while (goesOn()) {
      try {
        if (!this.tab) {
          this.means.show("joining", "Asking for a place in the federation.");
          this.tab = await this.join();
        }
        await this.round(goesOn);
        failures = 0;
      } catch (error) {
        if (!goesOn()) break;
        const words = wordsOf(error);
        if (error instanceof Final) {
          this.running = undefined;
          return this.means.show("ended", words);
        }
        if (error instanceof Unwanted) continue;
        this.means.show("retrying", words);
        await this.wait(Math.min(LONGEST_MS, FIRST_MS * 2 ** failures++) * (0.5 + Math.random() / 2));
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
    if (this.tab)
      fetch(routeUrl(ROUTE, "leave"), {
        method: "POST",
        keepalive: true,
        body: JSON.stringify({ tab: this.tab }),
      }).catch(() => undefined); // the server notices by itself
    this.tab = undefined;
  }

  private async join(): Promise<string> {
    const response = await ask(
      "join",
      JSON.stringify({ client: this.means.client, cores: navigator.hardwareConcurrency ?? 1 }),
    );
    return ((await response.json()) as { tab: string }).tab;
  }

  /** Ask once for work, and do it. */
  private async round(goesOn: () => boolean): Promise<void> {
    const response = await this.asTab("poll", JSON.stringify({ tab: this.tab }));
    if (!response.headers.get("Content-Type")?.startsWith("application/octet-stream")) {
      const { connected, said } = (await response.json()) as { connected: boolean; said: string };
      const words = connected ? "Connected. Waiting for the next round." : `Not connected to the federation: ${said}.`;
      return this.means.show("waiting", words);
    }
    const work = readFrame(new Uint8Array(await response.arrayBuffer()));
    const head = { tab: this.tab, work: work.header.work, base: work.header.base, kind: work.header.kind };
    let body: Uint8Array<ArrayBuffer>;
    let contribution: Contribution | undefined;
    try {
      const made = await this.attended(String(head.work), goesOn, (wanted) =>
        this.means.exclusively(() => this.work(work, wanted)),
      );
      body = writeFrame({ ...head, ...made.numbers }, made.row);
      if (made.row)
        contribution = {
          round: Number(work.header.round),
          bytes: body.length,
          examples: made.numbers.examples!,
          norm: distance(made.row, work.row),
        };
    } catch (error) {
      if (error instanceof Unwanted) throw error;
      // the words may quote the data: the server learns that it failed, the user why
      this.means.show("waiting", `This round failed: ${wordsOf(error)}.`);
      body = writeFrame({ ...head, failed: "the page shows its user why" });
    }
    const answer = await this.asTab("reply", body);
    const { counted } = (await answer.json()) as { counted: boolean };
    if (counted && contribution) await this.means.sent(contribution);
  }

  /** Say every few seconds that the tab lives, while it waits for its turn and while it works. `wanted` turns false when
   * nobody waits for the answer any more. */
  private async attended<T>(
    id: string,
    goesOn: () => boolean,
    work: (wanted: () => boolean) => Promise<T>,
  ): Promise<T> {
    let open = true;
    const say = async (): Promise<void> => {
      try {
        const response = await this.asTab("poll", JSON.stringify({ tab: this.tab, working: id }));
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
    if (!wanted()) throw new Unwanted();
    const trainer = await this.means.trainer();
    const { train, all } = await this.means.samples();
    await trainer.setWeights(row);
    if (header.kind === "evaluate") {
      this.means.show("measuring", "Measuring the federation's weights on the images of this browser.");
      return { numbers: { ...(await trainer.evaluate(all)) } as Record<string, number> };
    }
    const words = `Training in round ${header.round}, on ${train.labels.length} images of this browser.`;
    const { losses, steps, examples, seconds } = await trainer.train(train, {
      epochs: Number(header.epochs),
      lr: Number(header.lr),
      seed: header.seed as number[],
      step: ({ step, steps }) => {
        this.means.show("training", words, step / steps);
        if (!wanted()) throw new Unwanted();
      },
    });
    return {
      numbers: { loss: losses.at(-1)!, steps, examples, seconds } as Record<string, number>,
      row: await trainer.getWeights(),
    };
  }

  /** A request of an admitted tab; a gateway that knows it no more is asked for a place again. */
  private async asTab(path: string, body: BodyInit): Promise<Response> {
    try {
      return await ask(path, body);
    } catch (error) {
      if (error instanceof Gone) this.tab = undefined;
      throw error;
    }
  }

  private wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

class Gone extends Error {}

async function ask(path: string, body: BodyInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(routeUrl(ROUTE, path), { method: "POST", body });
  } catch {
    throw new Error("The server of this page cannot be reached. Trying again.");
  }
  if (response.ok) return response;
  const { error, final } = await refusal(response);
  if (response.status === 410) throw final ? new Final(error) : new Gone(`${error} Joining again.`);
  if (response.status === 409) throw new Error(`${error} Trying again.`);
  if (response.status === 403)
    throw new Final(`The server of this page refuses this tab, as one that was started anew does: ${error}`);
  throw new Error(`The server of this page answered ${response.status}: ${error}`);
}

async function refusal(response: Response): Promise<{ error: string; final?: boolean }> {
  const text = await response.text();
  try {
    const { error, final } = JSON.parse(text) as { error: string | { found: string }; final?: boolean };
    return { error: typeof error === "string" ? error : error.found, final };
  } catch {
    return { error: text.trim() };
  }
}

/** The L2 norm of a - b. */
export function distance(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum);
}
