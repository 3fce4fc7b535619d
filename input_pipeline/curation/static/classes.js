// The list of classes: how far each is, with a search.

import {ask} from "./server.js";
import {element} from "./tiles.js";

const find = id => document.getElementById(id);
let wanted = null, making = false, open = null;

export function start(facts, openClass) {
  ({wanted, making} = facts);
  open = openClass;
  find("short_text").textContent = wanted ? `short of ${wanted}` : "not finished";
  for (const name of ["search", "short"]) find(name).oninput = () => list();
  const narrow = matchMedia("(max-width: 1099px)");
  const show = shown => {
    document.body.classList.toggle("with_classes", shown);
    find("open_classes").ariaExpanded = String(shown);
  };
  show(!narrow.matches);
  find("open_classes").onclick = () =>
    show(!document.body.classList.contains("with_classes"));
}

// How far a class is, in words.
export function progress({accepted, possible, total}) {
  if (making && !total) return "no pair is possible";
  const done = `${accepted} of ${wanted ?? total} ${making ? "made" : "accepted"}`;
  if (wanted) return possible < wanted ? `${done}, ${possible} possible` : done;
  return possible < total ? `${done}, ${total - possible} rejected` : done;
}

function line(data, here) {
  const {accepted, possible, total} = data;
  const button = element("button", {textContent: `${data.name}: ${progress(data)}`});
  if (data.class === here) button.ariaCurrent = "true";
  button.onclick = () => open(data.class);
  const bar = element("div", {className: "bar"});
  for (const [className, count] of [["good", accepted], ["bad", wanted ? 0 : total - possible]]) {
    const part = element("i", {className});
    part.style.width = `${100 * count / Math.max(1, wanted ?? total)}%`;
    bar.append(part);
  }
  button.append(bar);
  return button;
}

const more = count => element("p", {textContent: count ? `${count} more` : ""});

let near = 0;
export async function list(here = near) {
  near = here;
  const asked = new URLSearchParams({near, search: find("search").value});
  if (find("short").checked) asked.set("short", 1);
  const data = await ask(`/classes?${asked}`);
  const box = find("class_list"), kept = box.scrollTop;
  box.replaceChildren(
    element("p", {textContent: `${data.lacking} ${wanted ? `short of ${wanted}` : "not finished"}`}),
    more(data.before), ...data.classes.map(c => line(c, near)), more(data.behind));
  box.scrollTop = kept;
  box.querySelector("[aria-current]")?.scrollIntoView({block: "nearest"});
}
