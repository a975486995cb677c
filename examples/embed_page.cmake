# embed_page(<file> <header>): writes a header with `program::page`, the file's bytes and a NUL. As numbers, because a
# text might mean something to CMake ($<...>) or to C++, and a literal of a text has a limit.
function(embed_page file header)
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
  file(GENERATE OUTPUT ${header}
    CONTENT "#pragma once\nnamespace program {\ninline constexpr char page[] = {\n${bytes}'\\0'};\n}\n")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
endfunction()
