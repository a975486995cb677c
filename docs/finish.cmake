cmake_minimum_required(VERSION 3.22)
# cmake -D SITE=... -P finish.cmake: repairs dead links that Doxygen 1.9.4 leaves.

# For a class whose nested classes are all private, Doxygen links to a list of them that it does not create.
file(GLOB pages ${SITE}/class*.html ${SITE}/struct*.html)
foreach(page IN LISTS pages)
  file(READ ${page} text)
  if(NOT text MATCHES "id=\"nested-classes\"")
    string(REPLACE "<a href=\"#nested-classes\">Classes</a> &#124;\n" "" mended "${text}")
    if(NOT mended STREQUAL text)
      file(WRITE ${page} "${mended}")
    endif()
  endif()
endforeach()

# The menu links functions and enumerations to their header's page, but they are on the namespace's page.
file(GLOB scripts ${SITE}/*_8hpp.js)
file(READ ${SITE}/namespacechatproto.html namespace)
foreach(script IN LISTS scripts)
  file(READ ${script} text)
  string(REGEX MATCHALL "[a-z_]+_8hpp\\.html#[a-z0-9]+" links "${text}")
  foreach(link IN LISTS links)
    string(REGEX REPLACE ".*#" "" anchor "${link}")
    if(namespace MATCHES "id=\"${anchor}\"")
      string(REPLACE "${link}" "namespacechatproto.html#${anchor}" text "${text}")
    endif()
  endforeach()
  file(WRITE ${script} "${text}")
endforeach()

# Doxygen names a diagram after a file.
file(GLOB pages ${SITE}/md_*.html)
foreach(page IN LISTS pages)
  file(READ ${page} text)
  string(REGEX REPLACE "alt=\"msc_inline_mscgraph_[0-9]+\"" "alt=\"Who sends what, in which order\"" mended "${text}")
  if(NOT mended STREQUAL text)
    file(WRITE ${page} "${mended}")
  endif()
endforeach()
