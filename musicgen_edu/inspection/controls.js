// How the controls of controls.py look and answer. Each is made of the browser's own elements, which screen readers and
// keyboards know; what they are named after is their label.

const KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown", " "]);

// Every control loads this module anew, so that a counter would give each the same number, and radio buttons of one
// name would be one group.
function newId() {
  return `musicgen-control-${Math.random().toString(36).slice(2)}`;
}

function create(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// JupyterLab would take arrow keys for itself and go to another cell.
function keepKeys(element) {
  element.addEventListener("keydown", (event) => {
    const changed = event.ctrlKey || event.metaKey || event.altKey || event.shiftKey;
    if (KEYS.has(event.key) && !changed) event.stopPropagation();
  });
}

function send(model, index) {
  model.set("index", index);
  model.save_changes();
}

function follow(model, names, show) {
  for (const name of names) model.on(`change:${name}`, show);
  show();
  return () => names.forEach((name) => model.off(`change:${name}`, show));
}

function slider(model, el) {
  const id = newId();
  const label = create("label", { for: id }, model.get("description"));
  const input = create("input", { id, type: "range", min: 0, step: 1 });
  const output = create("output", { for: id });
  const say = () => {
    output.textContent = model.get("labels")[Number(input.value)];
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", say);
  input.addEventListener(model.get("continuous") ? "input" : "change", () => send(model, Number(input.value)));
  el.append(label, input, output);
  return follow(model, ["labels", "index", "disabled"], () => {
    input.max = model.get("labels").length - 1;
    input.value = model.get("index");
    input.disabled = model.get("disabled");
    // Room for the longest label, so that the slider keeps its length while it is moved.
    output.style.minWidth = `${Math.max(...model.get("labels").map((text) => text.length))}ch`;
    say();
  });
}

function choice(model, el) {
  const id = newId();
  const options = create("div", { role: "radiogroup", "aria-labelledby": id });
  el.append(create("span", { id, class: "musicgen-name" }, model.get("description")), options);
  const build = () => {
    const buttons = model.get("labels").map((label, index) => {
      const button = create("input", { type: "radio", name: id });
      button.addEventListener("change", () => send(model, index));
      return create("label", {}, button, label);
    });
    options.replaceChildren(...buttons);
    mark();
  };
  const mark = () => options.querySelectorAll("input").forEach((button, index) => {
    button.checked = index === model.get("index");
    button.disabled = model.get("disabled");
  });
  const stops = [follow(model, ["labels"], build), follow(model, ["index", "disabled"], mark)];
  return () => stops.forEach((stop) => stop());
}

function shown(model, el) {
  let drawings = 0;
  const show = async () => {
    const drawing = ++drawings;
    const open = [...el.querySelectorAll("details")].map((details) => details.open);
    el.style.minHeight = `${el.offsetHeight}px`; // nothing below may jump while the next picture comes
    el.innerHTML = model.get("value");
    el.querySelectorAll("details").forEach((details, index) => { details.open = open[index] ?? details.open; });
    const pictures = [...el.querySelectorAll("img")];
    await Promise.all(pictures.map((picture) => picture.decode().catch(() => {})));
    // A sentence alone keeps the room of the picture that it stands for: the reader's eyes are there.
    if (drawing === drawings && (pictures.length || !el.textContent)) el.style.minHeight = "";
  };
  return follow(model, ["value"], show);
}

// What there is to draw, by its kind; a module that is read behind this one may add to it.
const KINDS = { slider, choice, shown };

export default {
  render({ model, el }) {
    const kind = model.get("kind");
    el.classList.add("musicgen-edu", `musicgen-${kind}`);
    if (model.get("tooltip")) el.title = model.get("tooltip");
    if (kind !== "shown") keepKeys(el);
    return KINDS[kind](model, el);
  },
};
