// The tab that takes sound: recorded by the microphone, or a .wav file, at the rate that the model takes.

import { size, type Tensor } from "../../npy";
import type { TensorSpec } from "../bundle";
import { element, wordsOf } from "../view/dom";
import type { Control, Give, InputTab } from "./control";
import { fit, mixed, paintWave, soundTensor } from "./sound";
import type { Task } from "./task";

const LONGEST_S = 10;

export const AUDIO: InputTab = {
  id: "audio",
  title: "Sound",
  hint: "Record a sound or choose a file.",
  available({ inputs }) {
    const [input, another] = inputs;
    if (!input || another || input.kind !== "audio") return null;
    return input.sample_rate_hz ? undefined : "The manifest does not name the sample rate of the input.";
  },
  build: (into, task, give) => new AudioControl(into, task, give),
};

class AudioControl implements Control {
  private readonly spec: TensorSpec;
  private readonly rate_hz: number;
  /** Of one sample, without the batch axis. */
  private readonly shape: number[];
  private readonly wave = element("canvas", { width: 800, height: 200, role: "img", ariaLabel: "The sound's wave" });
  private readonly words = element("p", { className: "hint", role: "status" });
  private readonly record = element("button", { type: "button", className: "main" }, "Record");
  private given: Tensor | undefined;
  private recorder: MediaRecorder | undefined;
  /** Of the microphone. A start that is not the newest was left while the browser asked for the permission. */
  private starts = 0;
  private openings = 0;

  constructor(
    into: HTMLElement,
    task: Task,
    private readonly give: Give,
  ) {
    this.spec = task.inputs[0]!;
    this.rate_hz = this.spec.sample_rate_hz!;
    const example = task.reference?.inputs[this.spec.name]?.shape.slice(1);
    this.shape = this.spec.shape.slice(1).map((n, axis) => n ?? example?.[axis] ?? this.rate_hz); // free: one second
    const input = element("input", { type: "file", accept: "audio/*,.wav", id: "sound" });
    input.addEventListener("change", () => {
      if (input.files?.[0]) this.open(input.files[0]);
    });
    this.record.addEventListener("click", () => this.toggle());
    this.record.disabled = !navigator.mediaDevices;
    if (this.record.disabled)
      this.record.title = "Browsers give the microphone only to https:// and localhost addresses.";
    const file = element("label", { className: "button" }, "Choose a file", input);
    const seconds = (size(this.shape) / this.rate_hz).toFixed(1);
    this.words.textContent = `The model takes ${seconds} s at ${this.rate_hz} Hz.`;
    into.append(element("div", { className: "stage sound" }, this.wave));
    into.append(element("p", { className: "buttons" }, this.record, file), this.words);
  }

  show(): void {
    this.give(this.given && { inputs: { [this.spec.name]: this.given } });
  }

  hide(): void {
    this.starts++;
    if (this.recorder?.state === "recording") this.recorder.stop();
  }

  private toggle(): void {
    if (this.recorder?.state === "recording") this.recorder.stop();
    else
      this.start().catch((error) => {
        this.words.textContent = `The microphone does not start: ${wordsOf(error)}. Allow it for this address, then try again.`;
      });
  }

  private async start(): Promise<void> {
    const mine = ++this.starts;
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    if (mine !== this.starts) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    const recorder = new MediaRecorder(stream);
    const parts: Blob[] = [];
    recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
    recorder.addEventListener("stop", () => {
      for (const track of stream.getTracks()) track.stop();
      this.record.textContent = "Record";
      this.open(new Blob(parts));
    });
    this.recorder = recorder;
    recorder.start();
    this.record.textContent = "Stop";
    this.words.textContent = "Recording…";
    const length_s = Math.min(LONGEST_S, size(this.shape) / this.rate_hz);
    setTimeout(() => recorder.state === "recording" && recorder.stop(), 1000 * length_s + 200);
  }

  private open(file: Blob): void {
    const mine = ++this.openings;
    this.read(file, mine).catch((error) => {
      if (mine === this.openings) this.words.textContent = `This browser cannot read the sound: ${wordsOf(error)}`;
    });
  }

  private async read(file: Blob, opening: number): Promise<void> {
    // a context decodes to its own rate: that resamples
    const context = new OfflineAudioContext(1, 1, this.rate_hz);
    const buffer = await context.decodeAudioData(await file.arrayBuffer());
    if (opening !== this.openings) return; // a newer sound came meanwhile
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
    const samples = fit(mixed(channels), size(this.shape));
    paintWave(this.wave, samples);
    this.given = soundTensor(samples, this.spec, this.shape);
    this.words.textContent = `${buffer.duration.toFixed(1)} s of sound at ${this.rate_hz} Hz.`;
    this.show();
  }
}
