// "Train here": label inputs of the first screen, train the bundle's trainable variant on them, use or save the result.

import "./train.css";
import type { Variant } from "../bundle";
import { hasRoute } from "../routes";
import type { Session } from "../session";
import { type ImageInput, taskOf } from "../try/task";
import { element, wordsOf } from "../view/dom";
import { ROUTE } from "./gateway_requests";
import { Images, imagesKey } from "./images";
import { classesOf, trainable } from "./open";
import { Personal } from "./personal";
import { Storage } from "./storage";
import { trainingForm } from "./training_form";
import { weightsForm } from "./weights_form";

/** What the parts of the panel work on. */
export interface Training {
  session: Session;
  variant: Variant;
  image: ImageInput;
  /** Names of the classes, from 0. */
  labels: string[];
  storage: Storage;
  images: Images;
  personal: Personal;
  /** Say something to the user, in the panel's line for it. */
  say(words: string): void;
}

export async function mount(into: HTMLElement, session: Session): Promise<void> {
  const variant = trainable(session.bundle);
  const image = taskOf(session.bundle)?.image;
  const labels = typeof variant === "string" ? undefined : classesOf(session.bundle, variant);
  if (typeof variant === "string" || !image || !labels) {
    const words = typeof variant === "string" ? variant : "The page trains classifiers of images only.";
    into.append(element("p", {}, words));
    return;
  }
  const status = element("p", { className: "hint" });
  status.role = "status";
  const { name, files } = session.bundle.manifest;
  const { height, width, channels } = image.layout;
  const size = { shape: [height, width, channels], range: image.spec.range };
  const storage = await Storage.open(`${name}/${height}x${width}x${channels}`, imagesKey(name, size, labels));
  const personal = new Personal(session, variant, storage, files[variant.entry]!.sha256);
  const training: Training = {
    session,
    variant,
    image,
    labels,
    storage,
    images: new Images(await storage.samples()),
    personal,
    say: (words) => {
      status.textContent = words;
    },
  };
  const { imagesForm } = await import("./images_form");
  into.append(
    element(
      "p",
      {},
      "Label images and train the model on them, in this tab. The images are kept in this browser and are never sent.",
    ),
    status,
    imagesForm(training),
    trainingForm(training),
    weightsForm(training),
  );
  if (hasRoute(ROUTE)) {
    const { federationForm } = await import("./federation_form");
    into.append(await federationForm(training));
  }
}

/** Run work of a button; its error is shown, and the button is locked meanwhile. */
export function onClick(button: HTMLButtonElement, training: Training, work: () => Promise<void> | void): void {
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      training.say(wordsOf(error));
    } finally {
      button.disabled = false;
    }
  });
}
