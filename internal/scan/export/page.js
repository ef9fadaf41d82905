(() => {
  'use strict';
  const form = document.querySelector('form.controls');
  const lists = [...document.querySelectorAll('ul.items')];
  if (!form || !lists.length) return;
  const rank = { critical: 0, high: 1, unknown: 2, medium: 3, low: 4 };
  const rows = lists.map(list => [...list.children].map(li => ({
    li, n: +li.dataset.n, s: li.dataset.s, t: ' ' + li.dataset.t + ' ', d: li.dataset.d || '9', f: li.dataset.f || '',
    p: li.querySelector('code').textContent, text: null,
  })));
  const total = rows.reduce((n, list) => n + list.length, 0);
  const orders = {
    n: (a, b) => a.n - b.n,
    s: (a, b) => rank[a.s] - rank[b.s] || a.n - b.n,
    p: (a, b) => (a.p < b.p ? -1 : a.p > b.p ? 1 : a.n - b.n),
    d: (a, b) => (a.d < b.d ? -1 : a.d > b.d ? 1 : a.n - b.n),
    f: (a, b) => (a.f > b.f ? -1 : a.f < b.f ? 1 : a.n - b.n),
  };
  let order = 'n', timer = 0;
  // Rows that are not shown are taken out of the page, and the list with them while
  // that happens: hiding or removing thousands one by one takes browsers seconds.
  const replace = (list, rows) => {
    const place = document.createComment('');
    list.replaceWith(place);
    list.replaceChildren(...rows);
    place.replaceWith(list);
  };
  const apply = () => {
    const e = form.elements;
    const words = e.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const want = e.show.value && ' ' + e.show.value + ' ';
    const severities = new Set([...e.severity].filter(box => box.checked).map(box => box.value));
    let shown = 0;
    rows.forEach((list, i) => {
      if (e.order.value !== order) list.sort(orders[e.order.value]);
      const keep = list.filter(row => {
        if (!severities.has(row.s) || want && !row.t.includes(want)) return false;
        if (!words.length) return true;
        if (row.text === null) row.text = row.li.textContent.toLowerCase();
        return words.every(word => row.text.includes(word));
      }).map(row => row.li);
      shown += keep.length;
      const now = lists[i].children;
      if (keep.length !== now.length || keep.some((li, j) => li !== now[j])) replace(lists[i], keep);
    });
    order = e.order.value;
    e.shown.value = shown === total ? total + ' shown' : shown + ' of ' + total + ' shown';
  };
  form.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(apply, 80); });
  form.addEventListener('submit', event => event.preventDefault());
  // A link to an entry opens it, and ends a filter that it does not pass.
  const byID = new Map(rows.flat().map(row => [row.li.id, row.li]));
  const reveal = () => {
    const li = byID.get(location.hash.slice(1));
    if (!li) return;
    if (!li.isConnected) {
      form.reset();
      apply();
    }
    li.querySelector('details').open = true;
    li.scrollIntoView();
  };
  addEventListener('hashchange', reveal);
  form.hidden = false;
  form.reset();
  apply();
  reveal();
})();
