// SPDX-License-Identifier: BSL-1.0
// Finds words in the texts of the pages; Doxygen's own search finds names. Enter in the search box, or the link above
// the names found, leads to search.html?q=WORDS, which lists the sections with all these words, or words that begin so.
// The texts are in texts.js, which texts.py makes: a script, because pages that come from files may fetch nothing.
'use strict';
(() => {
  const target = (words) => 'search.html?q=' + encodeURIComponent(words.trim());
  document.addEventListener('keydown', (event) => {
    if (event.target.id !== 'MSearchField' || event.key !== 'Enter' || !event.target.value.trim()) return;
    event.preventDefault();
    location.href = target(event.target.value);
  });
  const link = document.createElement('a');
  link.id = 'find-in-texts';
  document.getElementById('MSearchResultsWindow').prepend(link);
  document.addEventListener('input', (event) => {
    if (event.target.id !== 'MSearchField') return;
    link.href = target(event.target.value);
    link.textContent = `Enter: find “${event.target.value.trim()}” in the texts`;
  });

  const form = document.getElementById('find');
  if (!form) return;

  const most = 50;  // results
  const separator = /[^\p{L}\p{N}_]+/u;
  const stem = (word) => lunr.stemmer(new lunr.Token(word)).toString();
  // A word is found by its beginning, by its stem (drains: drain), and by its parts (queue_limit: limit).
  function forms(token) {
    const words = [`${token}`, ...`${token}`.split('_')].filter(Boolean);
    return [...new Set([...words, ...words.map(stem)])].map((form) => token.clone(() => form));
  }
  lunr.Pipeline.registerFunction(forms, 'forms');
  lunr.tokenizer.separator = separator;
  function search(words) {
    const index = lunr(function () {
      this.ref('number');
      this.field('title', { boost: 2 });
      this.field('text');
      this.metadataWhitelist = ['position'];
      this.pipeline.reset();
      this.pipeline.add(forms);
      this.searchPipeline.reset();
      texts.forEach(([url, title, text], number) => {
        this.add({ number, title, text }, { boost: url.startsWith('md_') ? 2 : 1 });  // the box itself finds names
      });
    });
    const hits = index.query((query) => words.forEach((word) => {
      query.term(word, { boost: 10 });
      query.term(stem(word), { boost: 5 });
      query.term(word, { wildcard: lunr.Query.wildcard.TRAILING });
    }));
    // lunr finds what contains any of the words.
    const has = (terms, word) => terms.some((term) => term.startsWith(word) || term === stem(word));
    return hits.filter(({ matchData }) => words.every((word) => has(Object.keys(matchData.metadata), word)));
  }

  // The text around the first of these places, each a begin and a length.
  function snippet(text, places) {
    places.sort(([a], [b]) => a - b);
    const first = places.length > 0 ? places[0][0] : 0;
    let at = first < 60 ? 0 : text.indexOf(' ', first - 60) + 1;
    const space = text.indexOf(' ', first + 180);
    const end = space < 0 ? text.length : space;
    const result = document.createElement('p');
    if (at > 0) result.append('… ');
    for (const [begin, length] of places) {
      if (begin < at || begin + length > end) continue;
      const mark = document.createElement('mark');
      mark.textContent = text.slice(begin, begin + length);
      result.append(text.slice(at, begin), mark);
      at = begin + length;
    }
    result.append(text.slice(at, end), end < text.length ? ' …' : '');
    return result;
  }

  const query = new URLSearchParams(location.search).get('q') ?? '';
  form.elements.q.value = query;
  if (!query.trim()) return;
  const words = [...new Set(query.toLowerCase().split(separator).filter(Boolean))];
  const hits = words.length > 0 ? search(words) : [];
  document.getElementById('found-count').textContent = hits.length === 0 ? `Nothing found for “${query}”.` :
    `${hits.length} section${hits.length > 1 ? 's' : ''}${hits.length > most ? `; the best ${most}` : ''}:`;
  for (const { ref, matchData } of hits.slice(0, most)) {
    const [url, title, text] = texts[ref];
    const place = document.createElement('a');
    place.href = url;
    place.textContent = title;
    const item = document.createElement('li');
    item.append(place, snippet(text, Object.values(matchData.metadata).flatMap((field) => field.text?.position ?? [])));
    document.getElementById('found').append(item);
  }
})();
