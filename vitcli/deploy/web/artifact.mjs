// The exported folder: its description, artifact.txt, and its files, which must be as they were written.

const VERSION = 4; // of artifact.txt

/** The description and the class names of the folder at the address `base`; throws if something is missing or changed. */
export async function openArtifact(base) {
  const values = await parse(await fetchBytes(base, "artifact.txt"));
  if (values.artifact_version !== String(VERSION)) {
    throw new Error(`artifact.txt has version ${values.artifact_version}, and this page reads version ${VERSION}`);
  }
  const labels = new TextDecoder().decode(await fetchFile(base, values.labels, values)).split("\n").slice(0, -1);
  return {
    model: values.model,
    precision: values.precision,
    labels,
    thresholds: values.thresholds ? numbers(values.thresholds) : null,
    preprocessing: readPreprocessing(values),
    network: () => fetchFile(base, values.network, values),
  };
}

/** How an image becomes the input of the network. */
export function readPreprocessing(values) {
  return {
    height: Number(values.image_height),
    width: Number(values.image_width),
    cropMode: values.crop_mode,
    cropPct: Number(values.crop_pct),
    border: numbers(values.border),
    filter: values.interpolation,
    channels: Number(values.in_channels),
  };
}

// The lines of key=value; the last one, `checksum`, is the SHA-256 of those before it.
async function parse(bytes) {
  const lines = new TextDecoder().decode(bytes).split("\n").slice(0, -1);
  const values = Object.fromEntries(lines.map((line) => [keyOf(line), unescaped(line.slice(keyOf(line).length + 1))]));
  const end = bytes.length - lines.at(-1).length - 1;
  await check("artifact.txt", bytes.subarray(0, end), values.checksum);
  return values;
}

function keyOf(line) {
  return line.slice(0, line.indexOf("="));
}

function unescaped(value) {
  return value.replace(/\\(.)/g, (_, letter) => ({ n: "\n", r: "\r" })[letter] ?? letter);
}

function numbers(text) {
  return text.split(",").map(Number);
}

async function fetchFile(base, name, values) {
  const bytes = await fetchBytes(base, name);
  await check(name, bytes, values[`sha256.${name}`]);
  return bytes;
}

async function fetchBytes(base, name) {
  const answer = await fetch(new URL(name, base));
  if (!answer.ok) throw new Error(`${name} cannot be read (${answer.status}): copy the folder again with all its files`);
  return new Uint8Array(await answer.arrayBuffer());
}

// Browsers compute hashes only for pages from https or localhost; elsewhere nothing is compared.
async function check(name, bytes, digest) {
  if (!globalThis.crypto?.subtle) return;
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== digest) throw new Error(`${name} was changed: it has another SHA-256. Copy the folder again`);
}
