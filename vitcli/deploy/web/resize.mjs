// How Pillow resizes images of 8 bits, bit by bit. An output pixel is a weighted mean of the source pixels under the
// filter, which is stretched by the scale when an image shrinks, so that no source pixel is skipped. Width and height
// are resized one after the other, each rounded to 8 bits, so the order shows; weights are integers with 22 fractional
// bits. The same in C++: deploy/cpp/resize.cpp.
//
// An image is {width, height, channels, pixels}: pixels is a Uint8Array of height x width x channels.

const FRACTION_BITS = 22;

/** `image` in the size width x height; filter: "nearest", "bilinear", "bicubic" or "lanczos". */
export function resize(image, width, height, filter) {
  if (filter === "nearest") return resizeNearest(image, width, height);
  if (heightFirst(image, width, height)) {
    return resizeWidth(resizeHeight(image, height, FILTERS[filter]), width, FILTERS[filter]);
  }
  return resizeHeight(resizeWidth(image, width, FILTERS[filter]), height, FILTERS[filter]);
}

/** A black image. */
export function newImage(width, height, channels) {
  return { width, height, channels, pixels: new Uint8Array(width * height * channels) };
}

const FILTERS = {
  bilinear: { radius: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { radius: 2, at: cubic },
  lanczos: { radius: 3, at: (x) => (-3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

// Keys' cubic convolution (1981) with a = -1/2.
function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

// Pillow's rule since 13.0: where many more rows than columns vanish, that is done first.
function heightFirst(image, width, height) {
  const rows = image.height - height;
  return rows > 0 && rows > 2 * (image.width - width);
}

// What each output pixel is made of: source pixels first, first + 1, …, each with a weight.
function blends(inLength, outLength, filter) {
  const scale = inLength / outLength;
  const stretch = Math.max(scale, 1);
  const radius = filter.radius * stretch;
  return Array.from({ length: outLength }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - radius + 0.5));
    const last = Math.min(inLength, Math.trunc(center + radius + 0.5));
    const weights = Array.from({ length: last - first }, (_, j) => filter.at((first + j - center + 0.5) * (1 / stretch)));
    let total = 0;
    for (const weight of weights) total += weight;
    return { first, weights: Int32Array.from(weights, (weight) => toInteger((weight / total) * 2 ** FRACTION_BITS)) };
  });
}

// Rounded away from zero at one half.
function toInteger(scaled) {
  return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
}

// The mean of pixels that lie `stride` apart, the first at `start`.
function blended(source, start, stride, weights) {
  let sum = 1 << (FRACTION_BITS - 1);
  for (let i = 0; i < weights.length; i++, start += stride) sum += source[start] * weights[i];
  return Math.min(Math.max(sum >> FRACTION_BITS, 0), 255);
}

function resizeWidth(image, width, filter) {
  if (width === image.width) return image;
  const { height, channels, pixels } = image;
  const columns = blends(image.width, width, filter);
  const result = newImage(width, height, channels);
  let out = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, weights } of columns) {
      const start = (y * image.width + first) * channels;
      for (let c = 0; c < channels; c++) result.pixels[out++] = blended(pixels, start + c, channels, weights);
    }
  }
  return result;
}

function resizeHeight(image, height, filter) {
  if (height === image.height) return image;
  const rowLength = image.width * image.channels;
  const result = newImage(image.width, height, image.channels);
  let out = 0;
  for (const { first, weights } of blends(image.height, height, filter)) {
    const start = first * rowLength;
    for (let i = 0; i < rowLength; i++) result.pixels[out++] = blended(image.pixels, start + i, rowLength, weights);
  }
  return result;
}

// The source pixel under the center of each output pixel. Pillow adds the step up, and so do its rounding errors.
function nearestPixels(inLength, outLength) {
  const step = inLength / outLength;
  let center = step * 0.5;
  return Array.from({ length: outLength }, () => {
    const pixel = Math.min(Math.trunc(center), inLength - 1);
    center += step;
    return pixel;
  });
}

function resizeNearest(image, width, height) {
  const { channels } = image;
  const columns = nearestPixels(image.width, width);
  const result = newImage(width, height, channels);
  let out = 0;
  for (const y of nearestPixels(image.height, height)) {
    for (const x of columns) {
      const start = (y * image.width + x) * channels;
      for (let c = 0; c < channels; c++) result.pixels[out++] = image.pixels[start + c];
    }
  }
  return result;
}
