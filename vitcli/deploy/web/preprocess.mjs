// From a decoded image to the pixels that the network sees: the same as vitcli/data/eval_transform.py, bit by bit.
import { newImage, resize } from "./resize.mjs";

const LONGEST_ASPECT = 16;

/**
 * The center of the resized image.
 *
 * `to` is the preprocessing of an artifact, see `readPreprocessing`; the image has as many channels as it says.
 */
export function networkPixels(image, to) {
  return centerCrop(scaled(image, to), to.height, to.width);
}

/** An image of the channels that the network takes, from RGBA values as of a canvas; transparency is dropped. */
export function fromRgba(rgba, width, height, channels) {
  const image = newImage(width, height, channels);
  const { pixels } = image;
  for (let from = 0, out = 0; from < rgba.length; from += 4) {
    const [red, green, blue] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) {
      pixels[out++] = luma(red, green, blue);
    } else {
      pixels[out++] = red;
      pixels[out++] = green;
      pixels[out++] = blue;
    }
  }
  return image;
}

// Gray by ITU-R 601, in Pillow's integers of 16 fractional bits.
function luma(red, green, blue) {
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
}

// The image, resized in the way of the crop mode: at least as large as the input.
function scaled(image, to) {
  const [height, width] = [Math.floor(to.height / to.cropPct), Math.floor(to.width / to.cropPct)];
  switch (to.cropMode) {
    case "squash":
      return resize(image, width, height, to.filter);
    case "border":
      return withBorder(resizeInto(image, height, width, to.filter), to.height, to.width, to.border);
    default:
      return resizeToCover(limitAspect(image), height, width, to.filter);
  }
}

// The middle of an image that is longer than 16:1; the whole image, resized, might not fit in memory.
function limitAspect(image) {
  const { width, height } = image;
  const cut = Math.floor(Math.max(Math.max(width, height) - LONGEST_ASPECT * Math.min(width, height), 0) / 2);
  if (cut === 0) return image;
  return width > height ? crop(image, cut, 0, width - 2 * cut, height) : crop(image, 0, cut, width, height - 2 * cut);
}

function resizeToCover(image, height, width, filter) {
  if (height === width) return resizeShorter(image, height, filter);
  const ratio = Math.min(image.height / height, image.width / width);
  return resize(image, rounded(image.width / ratio), rounded(image.height / ratio), filter);
}

function resizeShorter(image, shorter, filter) {
  const { width, height } = image;
  if (width <= height) return resize(image, shorter, Math.trunc((shorter * height) / width), filter);
  return resize(image, Math.trunc((shorter * width) / height), shorter, filter);
}

function resizeInto(image, height, width, filter) {
  const ratio = Math.max(image.height / height, image.width / width);
  const side = (length) => Math.max(rounded(length / ratio), 1);
  return resize(image, side(image.width), side(image.height), filter);
}

// The image in the middle of at least height x width pixels of the color `border`.
function withBorder(image, height, width, border) {
  const canvas = newImage(Math.max(image.width, width), Math.max(image.height, height), image.channels);
  canvas.pixels.forEach((_, i) => (canvas.pixels[i] = border[i % image.channels]));
  const [left, top] = [(canvas.width - image.width) >> 1, (canvas.height - image.height) >> 1];
  copyRows(image, 0, 0, canvas, left, top, image.width, image.height);
  return canvas;
}

function centerCrop(image, height, width) {
  return crop(image, rounded((image.width - width) / 2), rounded((image.height - height) / 2), width, height);
}

function crop(image, left, top, width, height) {
  const result = newImage(width, height, image.channels);
  copyRows(image, left, top, result, 0, 0, width, height);
  return result;
}

// A part of width x height pixels of one image into another.
function copyRows(from, fromLeft, fromTop, to, toLeft, toTop, width, height) {
  for (let y = 0; y < height; y++) {
    const start = ((fromTop + y) * from.width + fromLeft) * from.channels;
    const row = from.pixels.subarray(start, start + width * from.channels);
    to.pixels.set(row, ((toTop + y) * to.width + toLeft) * to.channels);
  }
}

// Half to even, as Python rounds.
function rounded(value) {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
