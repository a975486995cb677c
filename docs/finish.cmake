cmake_minimum_required(VERSION 3.22)
# cmake -D SITE=... -P finish.cmake: mends what Doxygen 1.9.4 leaves dead: where all nested classes are private, it links to
# a list of them and makes none.
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
