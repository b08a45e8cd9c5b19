// Taking part in a federation: what is sent and what is not, the user's consent, pause, and a record of what was sent.

import { element } from "../view/dom";
import { Federation, type Stage } from "./federation";
import { openTrainer } from "./open";
import type { Training } from "./panel";
import type { SentMessage } from "./storage";
import type { Trainer } from "./trainer";

const CLIENT = "edgeloop-browser"; // a random name, the same for all tabs of this browser

export async function federationForm(training: Training): Promise<HTMLElement> {
  const { session, variant, labels, images, storage, say } = training;
  const agree = element("input", { type: "checkbox", id: "federate-agree" });
  const start = element(
    "button",
    { type: "button", className: "main", id: "federate-start", disabled: true },
    "Take part",
  );
  const pause = element(
    "button",
    { type: "button", className: "quiet", id: "federate-pause", disabled: true },
    "Pause",
  );
  const status = element("p", { id: "federate-status" }, "This tab takes no part.");
  status.role = "status";
  const bar = element("progress", { max: 1, value: 0, ariaLabel: "Training of this round", hidden: true });
  const sent = await storage.sent();
  const totals = element("p", { className: "hint" });
  const rows = element("tbody", { id: "federate-sent" });

  let opened: Promise<Trainer> | undefined; // its weights are the federation's, not the personal ones
  const federation = new Federation({
    client: clientName(),
    model: session.bundle.manifest.files[variant.entry]!.sha256,
    trainer: () => {
      opened ??= openTrainer(session, variant, labels.length);
      opened.catch(() => {
        opened = undefined;
      });
      return opened;
    },
    samples: async () => {
      images.replace(await storage.samples());
      return { train: images.train, all: images.whole };
    },
    exclusively: (work) => session.exclusively(work),
    show: (stage, words, progress) => {
      status.textContent = words;
      status.dataset.stage = stage;
      bar.hidden = progress === undefined;
      bar.value = progress ?? 0;
      buttons(stage);
    },
    record: async (message) => {
      const kept = await storage.add("sent", { ...message, when: Date.now() });
      sent.push(kept);
      showSent();
      return async (counted) => {
        kept.counted = counted;
        showSent();
        await storage.update(kept);
      };
    },
  });
  const buttons = (stage: Stage): void => {
    const active = stage !== "off" && stage !== "ended";
    start.disabled = active || !agree.checked;
    agree.disabled = active;
    pause.disabled = !active;
  };
  const showSent = (): void => {
    rows.replaceChildren(...sent.toReversed().map(rowOf));
    const bytes = sent.reduce((sum, one) => sum + one.bytes, 0);
    totals.textContent = sent.length
      ? `${sent.length} messages, ${kilobytes(bytes)}, and every few seconds that this tab is open. No image was among them.`
      : "Nothing was sent yet.";
  };
  agree.addEventListener("change", () => buttons("off"));
  start.addEventListener("click", () => {
    if (!images.train.labels.length) return say("Label images first: the federation's rounds train on them.");
    void federation.start();
  });
  pause.addEventListener("click", () => federation.pause());
  addEventListener("pagehide", () => federation.leave());
  showSent();
  return element(
    "fieldset",
    { className: "part", id: "federate" },
    element("legend", {}, "Federation"),
    element(
      "p",
      {},
      "In each round the server sends weights, this tab trains them on your images, and the weights after the training are sent back.",
    ),
    element(
      "p",
      {},
      "Sent: the weights, the number of your images, the loss or accuracy, the time of the training, that a round failed, the number of CPUs, the hash of the model, and a random name of this browser.",
    ),
    element(
      "p",
      {},
      "Not sent: your images and their labels. Weights can nevertheless tell something about the images they were trained on.",
    ),
    element("label", {}, agree, " I agree that this tab trains and sends that until I press Pause or close it"),
    element("div", { className: "row" }, start, pause),
    status,
    bar,
    element("h3", {}, "What was sent"),
    totals,
    element(
      "div",
      { className: "scroll" },
      element(
        "table",
        {},
        element(
          "thead",
          {},
          element(
            "tr",
            {},
            ...["Round", "Time", "Size", "Images", "Norm of the update", "What", "Outcome"].map((title) =>
              element("th", { scope: "col" }, title),
            ),
          ),
        ),
        rows,
      ),
    ),
  );
}

const KINDS = {
  join: "name, CPUs, hash",
  train: "weights, loss, time",
  evaluate: "loss, accuracy",
  failed: "a failure",
};

const rowOf = ({ kind = "train", round, when, bytes, examples, norm, counted }: SentMessage): HTMLElement => {
  const row = element(
    "tr",
    {},
    ...[
      round ? String(round) : "",
      new Date(when).toLocaleString(),
      kilobytes(bytes),
      examples === undefined ? "" : String(examples),
      norm === undefined ? "" : norm.toPrecision(3),
      KINDS[kind],
      counted === undefined ? "not confirmed" : OUTCOMES[kind === "join" ? "join" : "round"][Number(counted)]!,
    ].map((text) => element("td", {}, text)),
  );
  row.dataset.kind = kind;
  return row;
};

const OUTCOMES = { join: ["refused", "admitted"], round: ["not counted", "counted"] };

const kilobytes = (bytes: number): string => `${(bytes / 1e3).toFixed(1)} kB`;

/** Kept for all tabs of this browser; where it cannot be kept, this tab's alone. */
function clientName(): string {
  const made = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
  try {
    const kept = localStorage.getItem(CLIENT) ?? made;
    localStorage.setItem(CLIENT, kept);
    return kept;
  } catch {
    return made;
  }
}
