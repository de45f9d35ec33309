// Opens the network and classifies pictures in a thread of its own, so that the page stays responsive.
import { MissingRuntime, openClassifier } from "./classifier.mjs";

const opened = openClassifier(new URL("./", import.meta.url));

opened.then(
  ({ artifact, numThreads }) =>
    postMessage({ kind: "ready", model: artifact.model, precision: artifact.precision, numThreads,
                  numClasses: artifact.labels.length, anyNumber: artifact.thresholds !== null }),
  (error) => postMessage({ kind: "failed", missing: error instanceof MissingRuntime, message: error.message }),
);

// One picture after the other: {id, file} is answered with {id, classes, milliseconds} or {id, message}.
let last = Promise.resolve();
onmessage = ({ data }) => (last = last.then(() => answer(data)));

async function answer({ id, file }) {
  try {
    const classifier = await opened;
    const pixels = await classifier.pixels(file);
    const start = performance.now();
    const probabilities = await classifier.probabilities(pixels);
    const milliseconds = performance.now() - start;
    postMessage({ kind: "answer", id, classes: classifier.ranked(probabilities), milliseconds });
  } catch (error) {
    postMessage({ kind: "answer", id, message: error.message });
  }
}
