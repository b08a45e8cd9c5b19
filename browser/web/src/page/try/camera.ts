// The tab with the camera: each frame that the model has time for is an input.

import { element, wordsOf } from "../view/dom";
import type { InputTab } from "./control";
import { InvertBox, sharesOf } from "./picture";

const PAUSE_MS = 60; // between frames: a faster answer flickers

export const CAMERA: InputTab = {
  id: "camera",
  title: "Camera",
  hint: "Allow the camera, then hold something in front of it.",
  available({ image }) {
    if (!image) return null;
    return navigator.mediaDevices ? undefined : "Browsers give the camera only to https:// and localhost addresses.";
  },
  build(into, task, give) {
    const image = task.image!;
    const video = element("video", { muted: true, playsInline: true, ariaLabel: "What the camera sees" });
    const words = element("p", { className: "hint", role: "status" });
    const frame = (): void => {
      if (video.readyState < video.HAVE_CURRENT_DATA) return;
      give(invert.apply(sharesOf(video, video.videoWidth, video.videoHeight, image)));
    };
    const invert = new InvertBox(image, frame);
    into.append(element("div", { className: "stage" }, video), invert.label, words);
    let timer: ReturnType<typeof setInterval> | undefined;
    let starts = 0; // a start that is not the newest was left while the browser asked for the permission

    const start = async (): Promise<void> => {
      const mine = ++starts;
      words.textContent = "Waiting for the camera…";
      const size = { width: { ideal: 640 }, height: { ideal: 480 } };
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", ...size } });
      if (mine !== starts) return end(stream);
      video.srcObject = stream;
      await video.play();
      if (mine !== starts) return;
      words.textContent = "";
      timer = setInterval(frame, PAUSE_MS);
    };
    const stop = (): void => {
      starts++;
      clearInterval(timer);
      end(video.srcObject as MediaStream | null);
      video.srcObject = null;
    };
    return {
      show() {
        stop(); // the tab may be chosen twice
        give(undefined);
        const mine = starts + 1;
        start().catch((error) => {
          if (mine !== starts) return;
          words.textContent = `The camera does not start: ${wordsOf(error)}. Allow it for this address, then choose the tab again.`;
        });
      },
      hide: stop,
    };
  },
};

function end(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
