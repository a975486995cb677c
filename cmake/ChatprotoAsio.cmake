# How the build and the installed package find standalone Asio. Included by both; not a find module, so that it cannot
# answer anyone else's find_package(asio).
#
# chatproto_find_asio(<error>) creates the target chatproto::asio from the first of
#   - a target asio::asio or asio that exists already,
#   - a CONFIG package `asio` (vcpkg, Conan),
#   - bare headers (Debian, Fedora, Homebrew), found as CHATPROTO_ASIO_INCLUDE_DIR,
# or else sets the variable <error> to a text that says what is missing.
function(chatproto_find_asio error)
  set(minimum 1.22)
  set(${error} "" PARENT_SCOPE)
  if(TARGET chatproto::asio)
    return()
  endif()

  if(NOT TARGET asio::asio AND NOT TARGET asio)
    find_package(asio CONFIG QUIET)
  endif()
  if(TARGET asio::asio OR TARGET asio)
    set(target asio)
    if(TARGET asio::asio)
      set(target asio::asio)
    endif()
    get_target_property(include_dirs ${target} INTERFACE_INCLUDE_DIRECTORIES)
    string(REGEX REPLACE "\\$<BUILD_INTERFACE:([^>]*)>" "\\1" include_dirs "${include_dirs}")
  else()
    find_path(CHATPROTO_ASIO_INCLUDE_DIR asio/version.hpp DOC "The folder with the headers of standalone Asio")
    mark_as_advanced(CHATPROTO_ASIO_INCLUDE_DIR)
    if(NOT CHATPROTO_ASIO_INCLUDE_DIR)
      set(${error} "chatproto needs standalone Asio ${minimum} or newer, and its headers were not found. Install them \
(Debian, Ubuntu: libasio-dev; Fedora: asio-devel; Homebrew, vcpkg, Conan: asio), or name the folder in which \
asio/version.hpp lies: -DCHATPROTO_ASIO_INCLUDE_DIR=<folder>" PARENT_SCOPE)
      return()
    endif()
    set(include_dirs ${CHATPROTO_ASIO_INCLUDE_DIR})
  endif()

  # Check the version. A target that hides its headers is trusted.
  foreach(dir IN LISTS include_dirs)
    if(EXISTS "${dir}/asio/version.hpp")
      file(STRINGS "${dir}/asio/version.hpp" line REGEX "#define ASIO_VERSION [0-9]+")
      if(line MATCHES "ASIO_VERSION ([0-9]+)([0-9][0-9][0-9])([0-9][0-9])")
        math(EXPR minor "${CMAKE_MATCH_2}")  # drops leading zeros
        if("${CMAKE_MATCH_1}.${minor}" VERSION_LESS minimum)
          set(${error} "chatproto needs standalone Asio ${minimum} or newer, and ${dir} has \
${CMAKE_MATCH_1}.${minor}" PARENT_SCOPE)
          return()
        endif()
      endif()
      break()
    endif()
  endforeach()

  add_library(chatproto::asio INTERFACE IMPORTED)
  if(target)
    target_link_libraries(chatproto::asio INTERFACE ${target})
  else()
    target_include_directories(chatproto::asio INTERFACE "${CHATPROTO_ASIO_INCLUDE_DIR}")
  endif()
endfunction()
