// Runs in the browser, in a page above the exported folders: classifies each picture with the modules of the page, then
// uses the pages themselves, and posts what was found.
import { openClassifier } from "./whole/classifier.mjs";

const found = { answers: {}, pages: {} };
try {
  const { names, pages } = await (await fetch("jobs.json")).json();
  const classifier = await openClassifier(new URL("./whole/", location));
  found.threads = classifier.numThreads;
  for (const name of names) found.answers[name] = await answer(classifier, await blob(name));
  for (const [folder, width] of pages) found.pages[`${folder} ${width}`] = await usePage(folder, width, names[0]);
} catch (error) {
  found.error = `${error}`;
}
await fetch("found", { method: "POST", body: JSON.stringify(found) });

async function blob(name) {
  return (await fetch(name)).blob();
}

async function answer(classifier, file) {
  try {
    const image = await classifier.pixels(file);
    return { pixels: Array.from(image.pixels), probabilities: Array.from(await classifier.probabilities(image)) };
  } catch (error) {
    return { error: error.message };
  }
}

// As a user would: in a window of that width, by the keyboard, until there is an answer or a complaint.
async function usePage(folder, width, name) {
  const frame = document.body.appendChild(document.createElement("iframe"));
  [frame.width, frame.height, frame.src] = [width, 800, `${folder}/index.html`];
  await new Promise((resolve) => (frame.onload = resolve));
  const page = frame.contentDocument;
  await until(() => !page.querySelector("#status").textContent.startsWith("Loading"));
  const choose = page.querySelector("#choose");
  choose.focus();
  const canBeFocused = page.activeElement === choose;
  const files = new DataTransfer();
  files.items.add(new File([await blob(name)], name));
  page.querySelector("#file").files = files.files;
  page.querySelector("#file").dispatchEvent(new Event("change"));
  await until(() => !page.querySelector("#status").textContent.startsWith("Looking"));
  return {
    status: page.querySelector("#status").textContent,
    rows: Array.from(page.querySelectorAll("#classes li"), (row) => row.innerText),
    missing: !page.querySelector("#missing").hidden,
    scrolls: page.documentElement.scrollWidth > width,
    canBeFocused,
  };
}

async function until(done) {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 20));
}
