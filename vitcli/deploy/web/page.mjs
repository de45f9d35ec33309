// The page: takes pictures by a click, a key, a drop or from the clipboard, and draws the answers.

const MOST_CLASSES = 5;

const element = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
let newest = 0; // number of the last picture that was given

worker.onmessage = ({ data }) => ({ ready, failed, answer })[data.kind](data);
worker.onerror = () => failed({ message: "the program of this page could not be loaded: copy the folder again" });
document.body.classList.add("running");
say("Loading the network …");

function ready({ model, precision, numThreads, numClasses }) {
  const threads = numThreads === 1 ? "1 thread" : `${numThreads} threads`;
  element("about").textContent = `${model}, ${precision}, ${numClasses.toLocaleString("en")} classes · ${threads}`;
  if (newest === 0) say("Ready. Pictures stay on this device.");
}

function failed({ missing, message }) {
  say(missing ? "" : `The network cannot be loaded: ${message}.`);
  element("missing").hidden = !missing;
  element("choose").disabled = true;
}

function answer({ id, classes, milliseconds, message }) {
  if (id !== newest) return; // another picture was given meanwhile
  if (message) {
    element("picture").hidden = true;
    say(`No answer: ${message}.`);
    return;
  }
  element("classes").replaceChildren(...classes.slice(0, MOST_CLASSES).map(([name, value]) => row(name, value)));
  say(classes.length ? `${Math.round(milliseconds)} ms` : `No class reaches its threshold. ${Math.round(milliseconds)} ms`);
}

function row(name, probability) {
  const percent = `${(100 * probability).toFixed(1)} %`;
  const item = document.createElement("li");
  const [label, value, bar] = ["span", "span", "meter"].map((kind) => document.createElement(kind));
  [label.textContent, value.textContent, bar.value, bar.title] = [name, percent, probability, percent];
  bar.setAttribute("aria-hidden", "true"); // the number says the same
  label.className = "name";
  item.append(label, value, bar);
  return item;
}

function say(text) {
  element("status").textContent = text;
}

function show(file) {
  if (!file || element("choose").disabled) return;
  newest += 1;
  const picture = element("picture");
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name || "picture from the clipboard";
  picture.hidden = false;
  element("classes").replaceChildren();
  say("Looking …");
  worker.postMessage({ id: newest, file });
}

element("picture").onerror = () => (element("picture").hidden = true);
element("choose").onclick = () => element("file").click();
element("file").onchange = ({ target }) => {
  show(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
};
document.onpaste = ({ clipboardData }) => show([...clipboardData.files].find(isPicture));
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("over");
};
document.ondragleave = ({ relatedTarget }) => relatedTarget ?? document.body.classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  show(event.dataTransfer.files[0]);
};

function isPicture({ type }) {
  return type.startsWith("image/");
}
