// Without this script all trees stand below each other, each whole; with it there are 50 a page, to be filtered.
{
  const SIZE = 50;
  const $ = id => document.getElementById(id);
  const list = document.querySelector(".listing");
  const values = (entry, name) => [...entry.querySelectorAll(`[data-${name}]`)].map(one => one.dataset[name]);
  const all = [...list.children].map(entry => {
    const head = entry.querySelector("summary") || entry;
    return { entry, text: head.querySelector(".id").textContent.toLowerCase(), task: values(head, "task"), problem: values(head, "problem") };
  });
  let found = all, first = 0;

  const fill = entry => {
    const kept = entry.querySelector("noscript");
    if (kept) kept.outerHTML = kept.textContent;
  };
  const show = () => {
    const page = found.slice(first, first + SIZE).map(item => item.entry);
    page.forEach(fill);
    list.replaceChildren(...page);
    const last = first + page.length;
    $("seen").textContent = page.length ? `${first + 1} to ${last} of ${found.length}` : "none";
    $("back").disabled = first === 0;
    $("on").disabled = last >= found.length;
  };
  const filter = () => {
    const words = $("words").value.toLowerCase(), task = $("task").value, problem = $("problem").value;
    found = all.filter(item => item.text.includes(words) && (!task || item.task.includes(task))
      && (!problem || (problem === "*" ? item.problem.length : item.problem.includes(problem))));
    first = 0;
    show();
  };
  const offer = (name, option) => {
    const counts = new Map();
    for (const item of all) for (const value of new Set(item[name])) counts.set(value, (counts.get(value) || 0) + 1);
    for (const [value, count] of [...counts].sort()) $(name).append(new Option(`${value} (${count})`, value));
  };
  // A tree may be on another page than the one that is shown, and its nodes are not there before it is filled.
  const follow = () => {
    const name = /^#(t\d+)(n\d+|all)?$/.exec(location.hash);
    const place = name ? all.findIndex(item => item.entry.id === name[1]) : -1;
    if (place < 0) return;
    if (!all[place].entry.isConnected) {
      $("words").value = $("task").value = $("problem").value = "";
      found = all;
      first = place - place % SIZE;
      show();
    }
    all[place].entry.open = true;
    for (const link of all[place].entry.querySelectorAll("nav a"))
      link.hash === location.hash ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  };
  const arrive = () => {
    const here = location.hash;
    follow();
    if (here && !document.querySelector(":target")) {
      history.replaceState(null, "", "#");
      location.hash = here;
    }
  };

  offer("task");
  offer("problem");
  if (all.some(item => item.problem.length)) $("problem").append(new Option("any problem", "*"));
  $("words").addEventListener("input", filter);
  $("task").addEventListener("change", filter);
  $("problem").addEventListener("change", filter);
  const turn = by => { first += by * SIZE; show(); list.parentElement.querySelector(".finder").scrollIntoView(); };
  $("back").addEventListener("click", () => turn(-1));
  $("on").addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", arrive);
  document.querySelector(".finder").hidden = false;
  show();
  arrive();
}
