// From the file of a picture to class probabilities, by ONNX Runtime for browsers.
import { openArtifact } from "./artifact.mjs";
import { fromRgba, networkPixels } from "./preprocess.mjs";

const MOST_THREADS = 4;
const STRIP_PIXELS = 4_000_000; // of an image are read at a time: phones limit the size of a canvas
const PNG_DEPTH = 24; // position of the number of bits in a PNG file

// Copied into the folder by the export, or installed in it by npm.
const PLACES = ["./", "./node_modules/onnxruntime-web/dist/"];

export class MissingRuntime extends Error {}

/** The network of the exported folder at the address `base`, ready to classify. */
export async function openClassifier(base) {
  const artifact = await openArtifact(base);
  const { ort, place } = await importRuntime(base);
  ort.env.wasm.wasmPaths = new URL(place, base).href;
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MOST_THREADS) : 1;
  const session = await ort.InferenceSession.create(await artifact.network(), { logSeverityLevel: 3 });
  return new Classifier(artifact, ort, session);
}

async function importRuntime(base) {
  for (const place of PLACES) {
    const address = new URL(`${place}ort.wasm.min.mjs`, base).href;
    if ((await fetch(address, { method: "HEAD" })).ok) return { ort: await import(address), place };
  }
  throw new MissingRuntime("onnxruntime-web is not in this folder");
}

class Classifier {
  constructor(artifact, ort, session) {
    Object.assign(this, { artifact, ort, session, numThreads: ort.env.wasm.numThreads });
  }

  /** The pixels of a picture (a Blob) that the network sees. */
  async pixels(file) {
    const { preprocessing } = this.artifact;
    return networkPixels(await decode(file, preprocessing.channels), preprocessing);
  }

  /** A probability for each class, Float32Array. */
  async probabilities({ pixels, width, height, channels }) {
    const input = new this.ort.Tensor("uint8", pixels, [1, height, width, channels]);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: input });
    return outputs[this.session.outputNames[0]].data;
  }

  /** All classes as [name, probability], most probable first; of any number per image, those from their threshold on. */
  ranked(probabilities) {
    const { labels, thresholds } = this.artifact;
    const classes = Array.from(probabilities, (probability, index) => [labels[index], probability, index]);
    const kept = thresholds ? classes.filter(([, probability, index]) => probability >= thresholds[index]) : classes;
    return kept.sort((a, b) => b[1] - a[1]).map(([name, probability]) => [name, probability]);
  }
}

// The picture, upright, as it is stored: without color management, which Pillow does not have either.
async function decode(file, channels) {
  const start = new Uint8Array(await file.slice(0, PNG_DEPTH + 1).arrayBuffer());
  if (String.fromCharCode(...start.subarray(1, 4)) === "PNG" && start[PNG_DEPTH] === 16) {
    throw new Error("a PNG of 16 bits per channel, of which browsers give 8; use vitcli predict");
  }
  const bitmap = await toBitmap(file);
  try {
    return readPixels(bitmap, channels);
  } finally {
    bitmap.close();
  }
}

async function toBitmap(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("this browser cannot read the file as a picture");
  }
}

function readPixels(bitmap, channels) {
  const { width, height } = bitmap;
  const rows = Math.min(height, Math.max(1, Math.floor(STRIP_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  const image = { width, height, channels, pixels: new Uint8Array(width * height * channels) };
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    canvas.clearRect(0, 0, width, rows);
    canvas.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const strip = fromRgba(canvas.getImageData(0, 0, width, count).data, width, count, channels);
    image.pixels.set(strip.pixels, top * width * channels);
  }
  return image;
}
