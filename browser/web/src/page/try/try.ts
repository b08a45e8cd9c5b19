// The first screen: the tabs that give an input, what the model sees of it, and its answer, live.

import type { Session } from "../session";
import { AnswerView } from "../view/answer";
import { byId, show } from "../view/dom";
import { showTabs } from "../view/tabs";
import { AUDIO } from "./audio";
import { CAMERA } from "./camera";
import type { Control, Given, InputTab } from "./control";
import { DRAW } from "./draw";
import { FILE, takeFiles } from "./file";
import { paint, unit } from "./image";
import { JSON_TEXT } from "./json";
import { NUMBERS } from "./numbers";
import { SAMPLES } from "./samples";
import { type Task, taskOf } from "./task";

/** A new way to give an input is one file and one name here. */
const TABS: readonly InputTab[] = [DRAW, CAMERA, FILE, NUMBERS, AUDIO, SAMPLES, JSON_TEXT];

/** What the page shows first, if the model takes it: nothing that asks a person for a camera, no pad for color images. */
const FIRST = [DRAW, NUMBERS, SAMPLES, JSON_TEXT, FILE, AUDIO];

export function showTry(session: Session): void {
  const task = taskOf(session.bundle);
  if (!task) return;
  const tabs = TABS.flatMap((tab) => {
    const reason = tab.available(task);
    return reason === null ? [] : [{ ...tab, reason }];
  });
  const gray = task.image?.layout.channels === 1;
  const order = FIRST.filter((tab) => gray || tab !== DRAW).map(({ id }) => id);
  const first = order.flatMap((id) => tabs.find((tab) => tab.id === id && tab.reason === undefined) ?? [])[0];
  if (!first) return;
  const asker = new Asker(session, task);
  const controls = new Map<string, Control>();
  let shown: Control | undefined;
  let active = first.id;
  const choose = showTabs(byId("tabs"), byId("sources"), tabs, first, ({ id, build, hint }, into) => {
    shown?.hide();
    active = id;
    const give = (given: Given | undefined): void => {
      if (active === id) asker.ask(given, hint); // a file may be read when another tab is shown already
    };
    shown = controls.get(id) ?? build(into, task, give);
    controls.set(id, shown);
    shown.show();
  });
  takeFiles(task, () => {
    choose(FILE.id);
    return controls.get(FILE.id)!;
  });
  show("try");
}

/** Asks the model for the newest input: what comes while it runs waits, and only the newest of that is asked. */
class Asker {
  private readonly view: AnswerView;
  private given: Given | undefined;
  private hint = "";
  private busy = false;
  private stale = false;

  constructor(
    private readonly session: Session,
    private readonly task: Task,
  ) {
    this.view = new AnswerView(session);
    session.addEventListener("change", () => this.view.clear("Opening the model…"));
    session.addEventListener("standing", () => this.run());
  }

  ask(given: Given | undefined, hint: string): void {
    this.given = given;
    this.hint = hint;
    this.showSeen();
    this.run();
  }

  private run(): void {
    this.stale = this.busy;
    if (this.busy) return;
    this.busy = true;
    this.answer()
      .catch((error) => this.view.fail(error))
      .finally(() => {
        this.busy = false;
        if (this.stale) this.run();
      });
  }

  private async answer(): Promise<void> {
    const given = this.given;
    const { standing } = this.session.current ?? {};
    if (standing && !standing.used) return this.view.clear("The model is not used, so it gives no answer.");
    if (!given) return this.view.clear(this.hint);
    const answer = await this.session.ask(given.inputs);
    if (answer && answer.model === this.session.current?.model && this.given) this.view.show(answer, given.source);
  }

  /** The image as the model gets it, if its input is one. */
  private showSeen(): void {
    const { image } = this.task;
    byId("seen-figure").hidden = !image;
    if (!image) return;
    const { layout, placement, spec } = image;
    const ground = new Float32Array(layout.width * layout.height * layout.channels).fill(placement.bright ? 0 : 1);
    const values = this.given ? unit(this.given.inputs[spec.name]!, 0, layout) : ground;
    paint(byId<HTMLCanvasElement>("seen"), values, layout);
    byId("seen-words").textContent = `${layout.width} × ${layout.height}${layout.channels === 1 ? " gray" : ""}`;
  }
}
